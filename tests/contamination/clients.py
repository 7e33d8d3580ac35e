"""Many clients at once, each asking one thing after another, and what every single one of them heard.

Each has connections of its own: httpx closes a kept connection that has become too old although another task has
just been given it (`anyio.ClosedResourceError` under its `ReadError`), and that is not the server's fault.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.contamination.cast import STRANGER, Cast
from tests.contamination.dialects import GENERATE, Ask, Dialect, Said, error_code

LOST_SECONDS = 60.0  # a request without an end after so long is lost
VERSION_HEADER = "x-hotswap-adapter"  # on every answer, whatever its dialect
TOP_P = 0.9  # below the certainty with which every word was learnt
BASE_TOP = 5
BACK_OFF_SECONDS = 0.2  # a client that is told to come back later
STRANGER_SHARE, BASE_SHARE, PINNED_SHARE = 0.02, 0.2, 0.25
CANCEL_SHARE, SAMPLED_SHARE = 0.08, 0.3


@dataclass
class Heard:
    """One request and all that came of it. Seconds of time.perf_counter."""

    dialect: Dialect
    ask: Ask
    input: int
    sent: float
    first: float | None = None  # when the status line was there
    ended: float = 0.0
    status: int | None = None
    retry_after: str | None = None
    said: Said = field(default_factory=Said)
    cancelled: bool = False
    lost: str | None = None  # why it had no end

    @property
    def alias(self) -> str | None:
        """The name without the version; None: the base."""
        return self.ask.reference.partition("@")[0] if self.ask.reference is not None else None

    def __str__(self) -> str:
        return (
            f"{self.dialect.name} on {self.ask.reference or 'the base'}: status {self.status}, "
            f"versions {sorted(map(str, self.said.versions))}, text {self.said.text[:60]!r}, "
            f"error {self.said.error}, {(self.ended - self.sent) * 1000:.0f} ms"
        )


class Clients:
    """A closed loop of clients; `hear` is told of every request when it ended."""

    def __init__(
        self,
        connect: Callable[[], httpx.AsyncClient],
        cast: Cast,
        dialects: Sequence[Dialect],
        hear: Callable[[Heard], None],
        *,
        seed: int,
        leave_seconds: float,
    ) -> None:
        """Whoever leaves before its answer is there does so within `leave_seconds`."""
        self._connect = connect
        self._cast = cast
        self._dialects = dialects
        self._hear = hear
        self._seed = seed
        self._leave_seconds = leave_seconds
        self._round = 0

    async def run(self, num_clients: int, stop: asyncio.Event) -> None:
        """Ask until `stop` is set; every request that was sent has ended when this returns."""
        self._round += 1
        async with asyncio.TaskGroup() as group:
            for number in range(num_clients):
                group.create_task(self._one(random.Random(f"{self._seed}-{self._round}-{number}"), stop))

    async def _one(self, drawn: random.Random, stop: asyncio.Event) -> None:
        async with self._connect() as client:
            while not stop.is_set():
                dialect, number, ask = self.draw(drawn)
                leaves = drawn.random() < CANCEL_SHARE
                after = drawn.uniform(0, self._leave_seconds) if leaves else None
                heard = await self.ask(client, dialect, ask, number, leaves_after=after)
                self._hear(heard)
                if heard.status == 503:
                    await asyncio.sleep(BACK_OFF_SECONDS)

    def draw(self, drawn: random.Random) -> tuple[Dialect, int, Ask]:
        """What to ask next."""
        number = drawn.randrange(len(self._cast.inputs))
        given = self._cast.inputs[number]
        dialect = drawn.choice([dialect for dialect in self._dialects if dialect.takes(given)])
        reference, logprobs = self._draw_reference(drawn), None
        sampling: dict[str, Any] = {"temperature": 0}
        if drawn.random() < SAMPLED_SHARE:
            sampling = {"temperature": 1.0, "top_p": TOP_P, "seed": drawn.randrange(1000)}
        elif reference is None and dialect is GENERATE[0]:
            logprobs = BASE_TOP  # a base that is a little of an adapter shows in its numbers
        max_tokens = drawn.randint(*self._cast.max_tokens)
        return dialect, number, Ask(reference, given, max_tokens, sampling, logprobs)

    def _draw_reference(self, drawn: random.Random) -> str | None:
        draw = drawn.random()
        if draw < STRANGER_SHARE:
            return STRANGER
        if draw < STRANGER_SHARE + BASE_SHARE:
            return None
        version = drawn.choice(self._cast.versions)
        return str(version) if draw < STRANGER_SHARE + BASE_SHARE + PINNED_SHARE else version.name

    async def ask(
        self,
        client: httpx.AsyncClient,
        dialect: Dialect,
        ask: Ask,
        number: int,
        *,
        leaves_after: float | None = None,
    ) -> Heard:
        """One request, whose client may leave before it has its answer."""
        heard = Heard(dialect, ask, number, time.perf_counter())
        try:
            async with asyncio.timeout(LOST_SECONDS if leaves_after is None else leaves_after):
                await self._put(client, heard)
        except TimeoutError:
            heard.cancelled = leaves_after is not None
            heard.lost = None if heard.cancelled else f"no end within {LOST_SECONDS:g} s"
        except httpx.TransportError as error:
            heard.lost = f"{error!r} of {error.__cause__!r}"
        except (KeyError, ValueError, TypeError) as error:
            heard.lost = f"an answer that cannot be read: {error!r}"
        heard.ended = time.perf_counter()
        return heard

    async def _put(self, client: httpx.AsyncClient, heard: Heard) -> None:
        dialect, base_name = heard.dialect, self._cast.base_name
        body = dialect.body(heard.ask, base_name)
        async with client.stream("POST", dialect.path, json=body) as response:
            heard.first, heard.status = time.perf_counter(), response.status_code
            heard.retry_after = response.headers.get("retry-after")
            if response.status_code == 200:
                named = response.headers[VERSION_HEADER]
                heard.said.versions.add(None if named == "base" else named)
            if response.status_code == 200 and dialect.stream:
                async with aclosing(events(response)) as received:
                    async for event, data in received:
                        dialect.piece(event, data, heard.said, base_name)
                return
            await response.aread()
            payload = response.json()
        if response.status_code == 200:
            dialect.whole(payload, heard.said, base_name)
        else:
            heard.said.error, heard.said.ends = error_code(payload), 1


async def events(response: httpx.Response) -> AsyncGenerator[tuple[str, str], None]:
    """(event, data) of each server-sent event."""
    event = ""
    async for line in response.aiter_lines():
        if line.startswith("event:"):
            event = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            yield event, line.removeprefix("data:").strip()
            event = ""
