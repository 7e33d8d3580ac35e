"""One block of load, with or without swaps, and the comparison of the two kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.closed_loop.errors import NoAnswerError
from benchmarks.statistics import Spread, percentile, spread
from benchmarks.steady.record import Record
from benchmarks.swap_impact.plan import SWAPPED
from benchmarks.swap_impact.swaps import Swap

TARGET_RATIO = 1.10  # p99 TTFT of the other adapters with swaps, over without
NOISY_SHARE = 0.05
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Block:
    """What one block brought; latencies are of the other adapters' complete answers."""

    pair: int
    swapping: bool
    seconds: float
    ttft_seconds: list[float]
    tpot_seconds: list[float]
    tokens: int
    swapped_ttft_seconds: list[float]  # of the adapter that is replaced
    requests: int
    errors: dict[str, int]
    swaps: list[Swap]
    foreign_cpu_share: float

    @property
    def failed(self) -> int:
        """Requests and swaps that failed."""
        return sum(self.errors.values()) + sum(swap.error is not None for swap in self.swaps)

    def figure(self, name: str) -> float:
        """One figure by its name in FIGURES."""
        return FIGURES[name](self)


FIGURES: Mapping[str, Callable[[Block], float]] = {
    "TTFT p50": lambda block: percentile(block.ttft_seconds, 0.5),
    "TTFT p99": lambda block: percentile(block.ttft_seconds, 0.99),
    "TPOT p50": lambda block: percentile(block.tpot_seconds, 0.5),
    "TPOT p99": lambda block: percentile(block.tpot_seconds, 0.99),
    "tok/s": lambda block: block.tokens / block.seconds,
}


def make_block(
    records: Sequence[Record],
    swaps: Sequence[Swap],
    *,
    pair: int,
    swapping: bool,
    warm_up_seconds: float,
    seconds: float,
    foreign_cpu_share: float,
) -> Block:
    """The figures of the requests that were sent after the warm-up. Failures count from the first request on."""
    measured = [record for record in records if record.sent_seconds >= warm_up_seconds]
    others = [record for record in measured if record.ok and record.adapter != SWAPPED]
    swapped = [record for record in measured if record.ok and record.adapter == SWAPPED]
    if not others:
        reasons = (
            "; ".join(sorted({r.error for r in records if r.error is not None})) or "nothing ended in time"
        )
        raise NoAnswerError(
            f"none of {len(measured)} requests on the other adapters was answered: {reasons[:500]}"
        )
    return Block(
        pair=pair,
        swapping=swapping,
        seconds=seconds,
        ttft_seconds=[r.ttft_seconds for r in others if r.ttft_seconds is not None],
        tpot_seconds=[r.tpot_seconds for r in others if r.tpot_seconds is not None],
        tokens=sum(record.tokens or 0 for record in others),
        swapped_ttft_seconds=[r.ttft_seconds for r in swapped if r.ttft_seconds is not None],
        requests=len(records),
        errors=dict(Counter(record.error for record in records if record.error is not None)),
        swaps=list(swaps),
        foreign_cpu_share=foreign_cpu_share,
    )


def ratios(blocks: Sequence[Block], name: str) -> Spread:
    """With swaps over without, of each pair."""
    by_pair: dict[int, dict[bool, float]] = {}
    for block in blocks:
        by_pair.setdefault(block.pair, {})[block.swapping] = block.figure(name)
    return spread([pair[True] / pair[False] for pair in by_pair.values() if len(pair) == 2 and pair[False]])


def pooled_p99_ratio(blocks: Sequence[Block], *, seed: int = 0) -> tuple[float, float, float]:
    """p99 TTFT of all requests with swaps over those without, and the 95 % interval of a bootstrap.

    Pairs are drawn first and requests within their blocks then, so that what a pair has in common counts.
    """
    draw = np.random.default_rng(seed)
    arms: dict[bool, dict[int, Any]] = {
        swapping: {b.pair: np.asarray(b.ttft_seconds) for b in blocks if b.swapping is swapping}
        for swapping in (False, True)
    }
    pairs = sorted(set(arms[False]) & set(arms[True]))

    def p99(swapping: bool, drawn: Sequence[int], *, resample: bool) -> float:
        parts = [
            draw.choice(values, len(values)) if resample else values
            for values in (arms[swapping][pair] for pair in drawn)
        ]
        return float(np.percentile(np.concatenate(parts), 99))

    found = []
    for _ in range(_RESAMPLES):
        drawn = [int(pair) for pair in draw.choice(pairs, len(pairs))]
        found.append(p99(True, drawn, resample=True) / p99(False, drawn, resample=True))
    whole = p99(True, pairs, resample=False) / p99(False, pairs, resample=False)
    low, high = np.percentile(found, [2.5, 97.5])
    return whole, float(low), float(high)


def phase_spreads(blocks: Sequence[Block]) -> dict[str, tuple[float, float, float]]:
    """(median, p99, most) seconds of each phase of all swaps, in the order in which phases come."""
    swaps = [swap for block in blocks for swap in block.swaps if swap.error is None]
    phases: dict[str, list[float]] = {}
    for swap in swaps:
        for phase, seconds in swap.phase_seconds.items():
            phases.setdefault(phase, []).append(seconds)
    phases["admin answer"] = [swap.answer_seconds for swap in swaps]
    return {
        phase: (percentile(values, 0.5), percentile(values, 0.99), max(values))
        for phase, values in phases.items()
        if values
    }
