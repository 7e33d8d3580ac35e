"""The same load in waves, one server after the other: pairs are seconds apart, where those of turns are minutes.

A machine whose speed changes by a tenth from minute to minute shows no difference of a hundredth in turns. In a
wave every worker sends one request and waits for its answer, so that nothing is left over for the next server.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import stats  # type: ignore[import-untyped]

from benchmarks.load.bench import Bench
from benchmarks.load.client.wire import PATHS, read_event, request_body
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.peers.confidence import SHARE, Interval
from benchmarks.load.workload.arrivals import Arrivals
from benchmarks.load.workload.schedule import Arrival
from benchmarks.turns import rotated

if TYPE_CHECKING:
    import aiohttp

_SEED = 2_000_000  # its texts are sent by no run


@dataclass(frozen=True, slots=True)
class Wave:
    """One answer of each worker."""

    tok_s: float  # from the first request to the last answer's end
    ttft_seconds: float  # median


@dataclass(frozen=True, slots=True)
class WaveFigures:
    """One way against another over all waves: medians, and where the means lie."""

    waves: int
    ratio: float  # of tok/s
    ratio_interval: Interval
    added_ttft_seconds: float
    added_ttft_interval: Interval


def take_waves(
    benches: Mapping[str, Bench],
    load: Arrivals,
    count: int,
    *,
    into: dict[str, list[Wave]],
    say: Callable[[str], None],
) -> None:
    """`count` waves of a closed loop for each of `benches`, by its name; another one is first in each.

    `into` gets each wave when it has ended. Servers must stream and be up together. Raises NothingMeasuredError at
    the first answer that is not complete.
    """
    asyncio.run(_take(benches, load, count, into, say))


def compare_waves(ours: Sequence[Wave], theirs: Sequence[Wave]) -> WaveFigures | None:
    """The waves of one number are a pair; None below two pairs."""
    pairs = list(zip(ours, theirs, strict=False))  # the last wave may have been interrupted
    if len(pairs) < 2:
        return None
    logs = [math.log(one.tok_s / other.tok_s) for one, other in pairs]
    added = [one.ttft_seconds - other.ttft_seconds for one, other in pairs]
    of_logs = _student(logs)
    return WaveFigures(
        len(logs),
        math.exp(statistics.median(logs)),
        Interval(math.exp(of_logs.low), math.exp(of_logs.high)),
        statistics.median(added),
        _student(added),
    )


def _student(values: list[float]) -> Interval:
    error = statistics.stdev(values) / math.sqrt(len(values))
    middle, reach = statistics.fmean(values), float(stats.t.ppf((1 + SHARE) / 2, len(values) - 1)) * error
    return Interval(middle - reach, middle + reach)


async def _take(
    benches: Mapping[str, Bench],
    load: Arrivals,
    count: int,
    into: dict[str, list[Wave]],
    say: Callable[[str], None],
) -> None:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for number in range(count):
            say(f"wave {number + 1} of {count}, {load.text}")
            for name in rotated(tuple(benches), number):
                try:
                    wave = await _wave(session, benches[name], load, number)
                except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
                    raise NothingMeasuredError(f"{name}: a wave broke off: {error!r}") from None
                into.setdefault(name, []).append(wave)


async def _wave(session: aiohttp.ClientSession, bench: Bench, load: Arrivals, number: int) -> Wave:
    arrivals = bench.schedule(load, seed=_SEED + number).arrivals[: load.workers]
    began = time.perf_counter()
    async with asyncio.timeout(bench.settings.timeout_seconds):
        ttfts = await asyncio.gather(*(_answer(session, bench, arrival, number) for arrival in arrivals))
    seconds = time.perf_counter() - began
    tokens = sum(arrival.max_tokens for arrival in arrivals)
    return Wave(tokens / seconds, statistics.median(ttfts))


async def _answer(session: aiohttp.ClientSession, bench: Bench, arrival: Arrival, number: int) -> float:
    """TTFT of one complete answer, seconds. Raises ValueError for another one."""
    dialect, prompts = bench.target.dialect, bench.prompts
    body = request_body(
        dialect,
        model=bench.target.base,
        adapter=arrival.adapter,
        prompt=prompts.prompt(_SEED + number * 1000 + arrival.number, arrival.prompt_tokens),
        max_tokens=arrival.max_tokens,
        stream=True,
    )
    key = bench.settings.key
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key.get_secret_value()}"
    sent = time.perf_counter()
    first: float | None = None
    tokens: int | None = None
    async with session.post(bench.target.url + PATHS[dialect], data=body, headers=headers) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        held = b""
        async for piece in response.content.iter_any():
            *blocks, held = (held + piece).split(b"\n\n")
            for event in map(read_event, blocks):
                if event is not None:
                    first = first or (time.perf_counter() - sent if event.text else None)
                    tokens = event.completion_tokens or tokens
    if first is None or tokens != arrival.max_tokens:
        raise ValueError(f"an answer of {tokens} tokens, not {arrival.max_tokens}")
    return first
