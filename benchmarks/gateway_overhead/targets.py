"""What the gateway may cost, and whether a comparison stays within it."""

from __future__ import annotations

from benchmarks.closed_loop.comparison import Comparison

THROUGHPUT_RATIO_TARGET = 0.98
ADDED_TTFT_TARGET_SECONDS = 0.002


def throughput_met(comparison: Comparison) -> bool | None:
    """Whether the median reaches the target; None without figures, or with noisy ones."""
    ratio = comparison.throughput_ratio
    return None if ratio is None or comparison.noisy else ratio.median >= THROUGHPUT_RATIO_TARGET


def ttft_met(comparison: Comparison) -> bool | None:
    """Whether the median stays within the target; None without figures, or with noisy ones."""
    added = comparison.added_ttft_seconds
    return None if added is None or comparison.noisy else added.median <= ADDED_TTFT_TARGET_SECONDS
