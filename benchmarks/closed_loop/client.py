"""The load client: a closed loop of workers against one server, in a process of its own.

Reads a BlockOrder as JSON from standard input and writes a BlockOutcome to standard output. The client shares
its cores with the servers, so that while load runs it only keeps what arrived and when; answers are read
afterwards.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.closed_loop.dialect import (
    PATHS,
    Dialect,
    read_events,
    request_body,
)
from benchmarks.closed_loop.sample import Sample, Stage

if TYPE_CHECKING:
    import aiohttp

_REFUSED_SECONDS = 0.05  # a server that refuses at once is not to be hammered


@dataclass(frozen=True, slots=True)
class BlockOrder:
    """What to send."""

    url: str
    dialect: Dialect
    model: str
    prompts: list[str]  # used in order, from the start again when they run out
    concurrency: int
    requests_per_worker: int
    max_tokens: int
    request_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class BlockOutcome:
    """What came back, and what the client itself cost."""

    samples: list[Sample]
    cpu_seconds: float

    def to_json(self) -> str:
        """For standard output."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BlockOutcome:
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return cls([Sample(**sample) for sample in fields["samples"]], fields["cpu_seconds"])


@dataclass(slots=True)
class _Arrival:
    """What came back for one request, unread."""

    sample: Sample
    expected_tokens: int
    status: int
    pieces: list[tuple[float, bytes]]


class _Loop:
    """The state that the workers of one block share."""

    def __init__(self, order: BlockOrder, session: aiohttp.ClientSession) -> None:
        self._order = order
        self._session = session
        self._start = time.perf_counter()
        self._next_prompt = 0
        self._busy_workers = order.concurrency
        self._all_measured = asyncio.Event()
        self._arrivals: list[_Arrival] = []

    async def run(self) -> list[Sample]:
        """All workers until each has its measured requests; the others keep the load up meanwhile."""
        workers = [asyncio.create_task(self._work(number)) for number in range(self._order.concurrency)]
        waiter = asyncio.create_task(self._all_measured.wait())
        await asyncio.wait([waiter, *workers], return_when=asyncio.FIRST_COMPLETED)
        for task in (waiter, *workers):
            task.cancel()
        results = await asyncio.gather(waiter, *workers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [_read(arrival) for arrival in self._arrivals]

    async def _work(self, number: int) -> None:
        order = self._order
        # Warm-up answers of different lengths spread the workers over the steps of an answer, as answers of
        # different lengths do in life: in step with each other, all would send in the same instant.
        length = 1 + (number + 1) * (order.max_tokens - 1) // order.concurrency
        await self._send(number, "warmup", length)
        for _ in range(order.requests_per_worker):
            await self._send(number, "measured", order.max_tokens)
        self._busy_workers -= 1
        if self._busy_workers == 0:
            self._all_measured.set()
        while not self._all_measured.is_set():
            await self._send(number, "cooldown", order.max_tokens)

    async def _send(self, worker: int, stage: Stage, max_tokens: int) -> None:
        import aiohttp

        order = self._order
        place = self._next_prompt % len(order.prompts)
        self._next_prompt += 1
        body = request_body(
            order.dialect, model=order.model, prompt=order.prompts[place], max_tokens=max_tokens
        )
        sample = Sample(worker, stage, place, sent_seconds=self._now())
        arrival = _Arrival(sample, max_tokens, 0, [])
        self._arrivals.append(arrival)
        try:
            async with self._session.post(order.url + PATHS[order.dialect], json=body) as response:
                arrival.status = response.status
                async for piece in response.content.iter_any():
                    arrival.pieces.append((self._now(), piece))
            sample.done_seconds = self._now()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            sample.error = f"{type(error).__name__}: {error}"[:300]
            sample.done_seconds = self._now()
            await asyncio.sleep(_REFUSED_SECONDS)

    def _now(self) -> float:
        return time.perf_counter() - self._start


def _read(arrival: _Arrival) -> Sample:
    """Fill in what the server answered."""
    sample = arrival.sample
    if arrival.status != 200:
        if sample.error is None and arrival.status:
            whole = b"".join(piece for _, piece in arrival.pieces)
            sample.error = f"HTTP {arrival.status}: {whole[:200].decode('utf-8', 'replace')}"
        return sample
    try:
        for seconds, event in read_events(arrival.pieces):
            if event.text:
                sample.event_seconds.append(seconds)
            sample.error = sample.error or event.error
            if event.completion_tokens is not None:
                sample.prompt_tokens, sample.completion_tokens = event.prompt_tokens, event.completion_tokens
    except (ValueError, TypeError, AttributeError) as error:
        sample.error = sample.error or f"unreadable answer: {error}"[:300]
    if sample.done_seconds is None or sample.error is not None:
        return sample
    if sample.completion_tokens is None:
        sample.error = "cut off: the answer ended without its token count"
    elif sample.completion_tokens != arrival.expected_tokens:
        sample.error = f"wrong length: {sample.completion_tokens} tokens, not {arrival.expected_tokens}"
    return sample


async def run_block(order: BlockOrder) -> list[Sample]:
    """Send one block of load; one sample per request that was sent."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=order.request_timeout_seconds)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        return await _Loop(order, session).run()


def main() -> None:
    """One block, from standard input to the file that the first argument names."""
    import uvloop

    fields: dict[str, Any] = json.load(sys.stdin)
    samples = uvloop.run(run_block(BlockOrder(**fields)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    # A file: what was written to a pipe arrived cut off at 65,536 bytes once in some forty blocks.
    outcome = BlockOutcome(samples, used.ru_utime + used.ru_stime)
    Path(sys.argv[1]).write_text(outcome.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
