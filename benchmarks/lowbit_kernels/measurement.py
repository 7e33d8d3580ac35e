"""Seconds per call, contenders in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from benchmarks.lowbit_kernels.contenders import Contender

SAMPLE_SECONDS = 0.01
"""A sample is as many calls as take about so long, so that a glance at the clock does not count."""

MAX_CALLS = 200

BUDGET_SECONDS = 5.0
"""A contender that took longer for one shape and number of tokens stops after MIN_SAMPLES: emulation is slow."""

MIN_SAMPLES = 3


def measure(
    contenders: Sequence[Contender], columns: int, tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds per call of each contender, at most one sample a round, for `tokens` rows of `columns` values."""
    wide = torch.randn(tokens, columns)
    given = {each.title: wide.to(each.dtype) for each in contenders}
    calls = {each.title: _calls_of(each, given[each.title]) for each in contenders}
    place = dict.fromkeys(calls, 0)
    seconds: dict[str, list[float]] = {title: [] for title in calls}
    for round_number in range(rounds):
        # Another order each round: what runs before leaves its mark on the caches.
        for index in range(len(contenders)):
            each = contenders[(index + round_number) % len(contenders)]
            taken = seconds[each.title]
            if len(taken) >= MIN_SAMPLES and sum(taken) * calls[each.title] > BUDGET_SECONDS:
                continue
            first, x = place[each.title], given[each.title]
            started = time.perf_counter()
            for number in range(first, first + calls[each.title]):
                each.call(x, number)
            taken.append((time.perf_counter() - started) / calls[each.title])
            place[each.title] = first + calls[each.title]
    return seconds


def _calls_of(contender: Contender, x: torch.Tensor) -> int:
    contender.call(x, 0)
    started = time.perf_counter()
    contender.call(x, 1)
    return max(1, min(MAX_CALLS, round(SAMPLE_SECONDS / (time.perf_counter() - started))))
