"""How sure a comparison of two arms is: 95 % intervals from what lies inside their runs.

A few rounds alone bound nothing. Throughput is taken from quarters of each window, paired within the round, so that
drift of the machine meets both sides; added TTFT from the single answers, drawn again and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from benchmarks.load.rounds import Turn
from benchmarks.load.run import RunResult
from benchmarks.load.window import Window

SHARE = 0.95
_SLICES = 4  # of a window
_DRAWS = 2000
_FEWEST_ANSWERS = 4  # of one run, for a median that can be drawn again


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value lies with a probability of `SHARE`."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether the value may be the true one, so that a limit there is neither kept nor broken for sure."""
        return self.low <= value <= self.high


def throughput_interval(turns: Sequence[Turn], ours: str, theirs: str) -> Interval | None:
    """Of ours / theirs in tok/s: Student's interval of the logarithms; None without three pairs of slices."""
    logs = [
        math.log(first / second)
        for run, other in _pairs(turns, ours, theirs)
        for first, second in zip(_slice_rates(run), _slice_rates(other), strict=True)
        if first > 0 and second > 0
    ]
    if len(logs) < 3:
        return None
    middle, error = float(np.mean(logs)), float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    reach = float(stats.t.ppf((1 + SHARE) / 2, len(logs) - 1)) * error
    return Interval(math.exp(middle - reach), math.exp(middle + reach))


def added_ttft_interval(turns: Sequence[Turn], ours: str, theirs: str) -> Interval | None:
    """Of the median over rounds of ours - theirs in TTFT p50, seconds: a bootstrap of the answers of each run."""
    random = np.random.default_rng(0)
    added = [
        _drawn_medians(run, random) - _drawn_medians(other, random)
        for run, other in _pairs(turns, ours, theirs)
        if min(len(_ttfts(run)), len(_ttfts(other))) >= _FEWEST_ANSWERS
    ]
    if not added:
        return None
    low, high = np.quantile(np.median(added, axis=0), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(float(low), float(high))


def _pairs(turns: Sequence[Turn], ours: str, theirs: str) -> list[tuple[RunResult, RunResult]]:
    others = {turn.round: turn.run for turn in turns if turn.arm == theirs}
    return [(turn.run, others[turn.round]) for turn in turns if turn.arm == ours and turn.round in others]


def _slice_rates(run: RunResult) -> list[float]:
    window, step = run.window, run.window.seconds / _SLICES
    slices = [Window(window.start + n * step, window.start + (n + 1) * step) for n in range(_SLICES)]
    return [sum(record.tokens_between(one.start, one.end) for record in run.records) / step for one in slices]


def _ttfts(run: RunResult) -> list[float]:
    return [
        record.ttft_seconds
        for record in run.records
        if record.ok and run.window.holds(record.scheduled_seconds) and record.ttft_seconds is not None
    ]


def _drawn_medians(run: RunResult, random: np.random.Generator) -> NDArray[np.float64]:
    found = np.asarray(_ttfts(run))
    medians: NDArray[np.float64] = np.median(random.choice(found, size=(_DRAWS, len(found))), axis=1)
    return medians
