"""How much of one text another one covers, by the tokens that occur."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def uncovered_share(calibration: Iterable[Sequence[int]], evaluation: Iterable[Sequence[int]]) -> float:
    """Share of the evaluation's tokens, counted as often as they occur, whose ids the calibration has nowhere.

    0 for an evaluation without tokens.
    """
    seen = {token for row in calibration for token in row}
    total = missed = 0
    for row in evaluation:
        total += len(row)
        missed += sum(token not in seen for token in row)
    return missed / total if total else 0.0
