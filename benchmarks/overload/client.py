"""The load client, in a process of its own: `python -m benchmarks.overload.client ORDER.json RECORDS.jsonl`.

An open loop sends each request when it is due, whatever became of the others; a closed loop has so many under way.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.closed_loop.prompts import make_prompts
from benchmarks.overload.record import Record, write_records

if TYPE_CHECKING:
    import aiohttp

_DELTA = b"event: delta"
_REFUSED_SECONDS = 0.05  # of a closed loop: a server that refuses at once is not to be hammered


@dataclass(frozen=True, slots=True)
class Order:
    """What to send: `rate` requests a second at random moments (0: a closed loop of `workers`)."""

    url: str
    seconds: float  # requests are begun for so long; those begun by then are waited for
    rate: float
    workers: int
    prompt_words: int
    max_tokens: int
    seed: str
    request_timeout_seconds: float

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What the parent process wrote."""
        return cls(**json.loads(text))

    def due_times(self) -> list[float]:
        """When an open loop's requests are due: a Poisson process, the same for the same seed."""
        draw = random.Random(f"{self.seed}/times")  # noqa: S311 - repeatable, nothing to guess
        found, at = [], draw.expovariate(self.rate)
        while at < self.seconds:
            found.append(at)
            at += draw.expovariate(self.rate)
        return found


class Sender:
    """Sends one order."""

    def __init__(self, order: Order, session: aiohttp.ClientSession) -> None:
        self._order = order
        self._session = session
        self._start = time.perf_counter()
        self._drawn = 0
        self.records: list[Record] = []

    async def run(self) -> list[Record]:
        """Until everything that was begun has ended."""
        order = self._order
        if order.rate:
            async with asyncio.TaskGroup() as group:
                for due in order.due_times():
                    await asyncio.sleep(due - self._now())
                    group.create_task(self._send(due, order.max_tokens))
        else:
            async with asyncio.TaskGroup() as group:
                for number in range(order.workers):
                    group.create_task(self._work(number))
        return self.records

    async def _work(self, number: int) -> None:
        # First answers of different lengths keep the workers out of step with each other.
        length = 1 + number % self._order.max_tokens
        while self._now() < self._order.seconds:
            record = await self._send(self._now(), length)
            length = self._order.max_tokens
            if not record.answered:
                await asyncio.sleep(_REFUSED_SECONDS)

    async def _send(self, due: float, max_tokens: int) -> Record:
        import aiohttp

        self._drawn += 1
        words, seed = self._order.prompt_words, f"{self._order.seed}/{self._drawn}"
        body = {
            "prompt": make_prompts(1, words=words, seed=seed)[0],
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
        }
        record = Record(due, self._now())
        self.records.append(record)
        try:
            async with self._session.post(self._order.url + "/generate", json=body) as response:
                record.status = response.status
                if response.status == 200:
                    await self._read(response, record, max_tokens)
                else:
                    text = (await response.text())[:200]
                    retry = response.headers.get("Retry-After", "")
                    record.retry_after_seconds = int(retry) if retry.isdecimal() else None
                    record.error = None if record.refused else f"HTTP {response.status}: {text}"
            record.done_seconds = self._now()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            record.error = f"{type(error).__name__}: {error}"[:300]
        return record

    async def _read(self, response: aiohttp.ClientResponse, record: Record, max_tokens: int) -> None:
        rest = b""
        last = b""
        async for piece in response.content.iter_any():
            *events, rest = (rest + piece).split(b"\n\n")
            if record.first_seconds is None and any(event.startswith(_DELTA) for event in events):
                record.first_seconds = self._now()
            last = events[-1] if events else last
        name, _, data = last.partition(b"\ndata: ")
        fields = json.loads(data or b"{}")
        if name != b"event: done":
            record.error = str(fields.get("error", {}).get("code", "cut off"))
            return
        record.tokens = fields["usage"]["completion_tokens"]
        if record.tokens != max_tokens:
            record.error = f"wrong length: {record.tokens} tokens, not {max_tokens}"

    def _now(self) -> float:
        return time.perf_counter() - self._start


async def run_order(order: Order) -> list[Record]:
    """Send the load; one record for each request."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=order.request_timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        return await Sender(order, session).run()


def main() -> None:
    """One load, from the order in the first file to the records in the second."""
    import uvloop

    order = Order.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write_records(Path(sys.argv[2]), uvloop.run(run_order(order)))


if __name__ == "__main__":
    main()
