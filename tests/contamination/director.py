"""Whoever moves the names while the clients ask: one director for each name, one verb after another.

A director knows what each verb must do and writes it into the history before it sends the verb. Verbs that the
server does not have are left out.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from tests.contamination.cast import DAMAGED, Cast, Version
from tests.contamination.history import NOTHING, Answerers, History
from tests.contamination.judge import Judge

VERB_SECONDS = 120.0
DRAIN_SECONDS = 60.0  # longer than any request


@dataclass(frozen=True)
class Standing:
    """What the server should have of one name."""

    live: Version | None = None  # what the alias means
    held: frozenset[Version] = field(default=frozenset())  # answer to their pinned names beside it

    def answerers(self, versions: tuple[Version, ...]) -> dict[str, Answerers]:
        """Who answers to the alias and to each version's name."""
        [name] = {version.name for version in versions}
        known: dict[str, Answerers] = {name: _one(self.live)}
        for version in versions:
            there = version == self.live or version in self.held
            known[str(version)] = _one(version if there else None)
        return known

    @property
    def resident(self) -> frozenset[Version]:
        """What the engine should hold."""
        return self.held | ({self.live} if self.live is not None else frozenset())


def _one(version: Version | None) -> Answerers:
    return frozenset({NOTHING if version is None else str(version)})


class Director:
    """Moves one name."""

    def __init__(self, client: httpx.AsyncClient, cast: Cast, name: str, judge: Judge, *, seed: int) -> None:
        self.standing = Standing()
        self.verbs: Counter[str] = Counter()
        self.name = name
        self._client = client
        self._versions = cast.of(name)
        self._judge = judge
        self._history: History = judge.history
        self._drawn = random.Random(f"{seed}-{name}")

    async def begin(self) -> None:
        """The first version goes live."""
        await self._load(self._versions[0])

    async def run(self, stop: asyncio.Event, *, pause_seconds: float) -> None:
        """One verb after another until `stop` is set; the last one is done when this returns."""
        while not stop.is_set():
            verb = self._drawn.choice(self._possible())
            await verb()
            try:
                async with asyncio.timeout(self._drawn.expovariate(1 / pause_seconds)):
                    await stop.wait()
            except TimeoutError:
                pass

    def _possible(self) -> list[Callable[[], Awaitable[None]]]:
        """The verbs that make sense now, the frequent ones several times."""
        if self.standing.live is None:
            return [self._load_any, self._load_any, self._load_damaged]
        return [
            *[self._load_any] * 5,
            self._load_again,
            self._load_damaged,
            self._unload,
            self._unload_at_once,
        ]

    async def _load_any(self) -> None:
        await self._load(self._drawn.choice([v for v in self._versions if v != self.standing.live]))

    async def _load(self, version: Version) -> None:
        body = {"name": self.name, "source": version.source}
        await self._move("load", replace(self.standing, live=version), "POST", "/admin/adapters", body, {201})

    async def _load_again(self) -> None:
        """Twice at once: nothing happens."""
        assert self.standing.live is not None
        body = {"name": self.name, "source": self.standing.live.source}
        answers = [self._send("POST", "/admin/adapters", body) for _ in range(2)]
        for answer in await asyncio.gather(*answers):
            self._expect("load again", answer, {200})

    async def _load_damaged(self) -> None:
        body = {"name": self.name, "source": DAMAGED}
        self._expect("load damaged", await self._send("POST", "/admin/adapters", body), {422})

    async def _unload(self) -> None:
        path = f"/admin/adapters/{self.name}?drain_seconds={DRAIN_SECONDS:g}"
        await self._move("unload", Standing(), "DELETE", path, None, {200})

    async def _unload_at_once(self) -> None:
        path = f"/admin/adapters/{self.name}?drain_seconds=0"
        with self._history.excuse("aborted", name=self.name):
            await self._move("unload at once", Standing(), "DELETE", path, None, {200})

    async def _move(
        self, verb: str, after: Standing, method: str, path: str, body: Any, expected: set[int]
    ) -> None:
        """A verb that changes who answers."""
        with self._history.change(after.answerers(self._versions)) as change:
            answer = await self._send(method, path, body)
            if self._expect(verb, answer, expected):
                self.standing = after
            else:
                change.fail()

    async def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self._client.request(method, path, json=body, timeout=VERB_SECONDS)

    def _expect(self, verb: str, answer: httpx.Response, expected: set[int]) -> bool:
        self.verbs[verb] += 1
        if answer.status_code in expected:
            return True
        self._judge.fault("verb", f"{verb} {self.name}: {answer.status_code} {answer.text[:300]}")
        return False
