"""Rows to calibrate with, rows and prompts to measure with, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CalibrationStats:
    """Where the rows come from and how much they hold."""

    source: str
    examples: int
    """Examples of which at least a part is in the calibration rows."""
    rows: int
    tokens: int
    """In all calibration rows together."""
    distinct_tokens: int
    row_tokens: int
    uncovered_share: float
    """Share of the tokens of the evaluation text whose ids occur nowhere in the calibration rows."""
    held_out_examples: int
    held_out_rows: int


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """`rows` are token ids, each `row_tokens` long; the held-out rows share no example with them."""

    rows: list[list[int]]
    held_out_rows: list[list[int]]
    """Each `row_tokens` long too, unless the held-out text fills no row: then one shorter row."""
    held_out_prompts: list[list[int]]
    """Token ids of what is asked in the held-out examples, up to where the answer begins."""
    stats: CalibrationStats
    warnings: tuple[str, ...]


def split_rows(calibration: CalibrationSet, held_out: int) -> tuple[list[list[int]], list[list[int]]]:
    """(all calibration rows, up to `held_out` held-out rows); no example has tokens in both."""
    return calibration.rows, calibration.held_out_rows[:held_out]
