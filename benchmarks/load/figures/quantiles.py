"""Percentiles with the number they rest on and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

_SHARES = (0.5, 0.9, 0.95, 0.99)
_CONFIDENCE = 0.95


def describe(values: Sequence[float]) -> dict[str, Any] | None:
    """n, mean, p50 to p99, max, and for p50 and p99 a 95 % interval; None for no values.

    The interval is exact and free of any distribution: between the order statistics whose ranks a binomial
    count of values below the percentile lies between. An end that no value bounds is null: so many values do not
    tell (p99 needs about 300 for its upper end).
    """
    if not values:
        return None
    ordered = np.sort(np.asarray(values, dtype=float))
    found: dict[str, Any] = {"n": len(ordered), "mean": _round(ordered.mean()), "max": _round(ordered[-1])}
    for share in _SHARES:
        found[f"p{round(share * 100)}"] = _round(np.quantile(ordered, share))
    for share in (0.5, 0.99):
        found[f"p{round(share * 100)}_interval"] = _interval(ordered, share)
    return found


def _interval(ordered: Any, share: float) -> list[float | None]:
    count = len(ordered)
    tail = (1.0 - _CONFIDENCE) / 2
    low = int(stats.binom.ppf(tail, count, share)) - 1
    high = int(stats.binom.ppf(1.0 - tail, count, share))
    return [
        _round(ordered[low]) if low >= 0 else None,
        _round(ordered[high]) if high < count else None,
    ]


def _round(value: Any) -> float:
    return round(float(value), 6)
