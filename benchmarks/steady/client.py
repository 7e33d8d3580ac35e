"""The load client, in a process of its own: `python -m benchmarks.steady.client ORDER.json RECORDS.jsonl`."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.closed_loop.prompts import make_prompts
from benchmarks.steady.record import Record, write_records

if TYPE_CHECKING:
    import aiohttp

_REFUSED_SECONDS = 0.05  # a server that refuses at once is not to be hammered


@dataclass(frozen=True, slots=True)
class Order:
    """What to send. Each lane asks its adapters in turn, one request at a time."""

    url: str
    lanes: list[list[str | None]]
    start_at_seconds: float  # of time.monotonic
    seconds: float  # requests are begun for so long; those begun by then are waited for
    prompt_words: int
    max_tokens: int
    seed: str
    request_timeout_seconds: float
    refused_seconds: float = _REFUSED_SECONDS  # a lane waits for so long after a failure

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What the parent process wrote."""
        return cls(**json.loads(text))


class Lanes:
    """All lanes of one load."""

    def __init__(self, order: Order, session: aiohttp.ClientSession) -> None:
        self._order = order
        self._session = session
        self._open = 0  # requests begun in time and not ended
        self._settled = asyncio.Event()
        self.records: list[Record] = []

    async def run(self) -> list[Record]:
        """Until the time is up and what was begun by then has ended; lanes keep the load up meanwhile."""
        await asyncio.sleep(max(0.0, -self._now()))
        lanes = [asyncio.create_task(self._lane(number)) for number in range(len(self._order.lanes))]
        await asyncio.sleep(self._order.seconds)
        if self._open:
            await self._settled.wait()
        for lane in lanes:
            lane.cancel()
        for result in await asyncio.gather(*lanes, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        return [record for record in self.records if record.sent_seconds < self._order.seconds]

    async def _lane(self, number: int) -> None:
        order = self._order
        draw = random.Random(f"{order.seed}/{number}")  # noqa: S311 - repeatable, nothing to guess
        adapters = order.lanes[number]
        turn = 0
        while True:
            # First answers of different lengths keep the lanes out of step with each other.
            length = order.max_tokens if turn else 1 + number % order.max_tokens
            prompt = make_prompts(1, words=order.prompt_words, seed=draw.getrandbits(64))[0]
            await self._send(number, adapters[turn % len(adapters)], prompt, length)
            turn += 1

    async def _send(self, lane: int, adapter: str | None, prompt: str, max_tokens: int) -> None:
        import aiohttp

        body: dict[str, Any] = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
        }
        if adapter is not None:
            body["adapter"] = adapter
        record = Record(lane, adapter, self._now())
        self.records.append(record)
        in_time = record.sent_seconds < self._order.seconds
        self._open += in_time
        try:
            async with self._session.post(self._order.url + "/generate", json=body) as response:
                if response.status != 200:
                    text = (await response.text())[:200]
                    record.error = f"HTTP {response.status}: {text}"
                else:
                    await self._read(response, record)
            record.done_seconds = self._now()
            if record.error is None and record.tokens != max_tokens:
                record.error = f"wrong length: {record.tokens} tokens, not {max_tokens}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            record.error = f"{type(error).__name__}: {error}"[:300]
        finally:
            self._open -= in_time
            if not self._open and self._now() >= self._order.seconds:
                self._settled.set()
        if record.error is not None:
            await asyncio.sleep(self._order.refused_seconds)

    async def _read(self, response: aiohttp.ClientResponse, record: Record) -> None:
        rest = b""
        async for piece in response.content.iter_any():
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                self._note(event, record)

    def _note(self, event: bytes, record: Record) -> None:
        name, _, data = event.partition(b"\ndata: ")
        if name == b"event: delta":
            record.last_seconds = self._now()
            if record.first_seconds is None:
                record.first_seconds = record.last_seconds
            return
        fields = json.loads(data)
        if name == b"event: done":
            record.tokens = fields["usage"]["completion_tokens"]
            record.version = fields["adapter"]
            if record.adapter is not None and str(record.version).partition("@")[0] != record.adapter:
                record.error = f"wrong adapter: {record.version} answered for {record.adapter}"
        else:
            record.error = str(fields.get("error", {}).get("code", "unreadable event"))

    def _now(self) -> float:
        return time.monotonic() - self._order.start_at_seconds


async def run_order(order: Order) -> list[Record]:
    """Send the load; one record for each request that was begun in time."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=order.request_timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        return await Lanes(order, session).run()


def main() -> None:
    """One load, from the order in the first file to the records in the second."""
    import uvloop

    order = Order.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with suppress(KeyboardInterrupt):
        write_records(Path(sys.argv[2]), uvloop.run(run_order(order)))


if __name__ == "__main__":
    main()
