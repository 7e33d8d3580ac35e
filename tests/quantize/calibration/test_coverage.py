"""How much of one text another one covers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from quantize.calibration.coverage import uncovered_share

ROWS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), max_size=5)


def test_tokens_count_as_often_as_they_occur() -> None:
    assert uncovered_share([[1, 2, 3]], [[1, 1, 4], [4, 4, 5]]) == 4 / 6


@given(rows=ROWS)
def test_a_text_covers_itself_and_nothing_covers_it_but_that(rows: list[list[int]]) -> None:
    assert uncovered_share(rows, rows) == 0.0
    assert uncovered_share([], rows) == (1.0 if rows else 0.0)


@given(calibration=ROWS, more=ROWS, evaluation=ROWS)
def test_more_calibration_text_never_covers_less(
    calibration: list[list[int]], more: list[list[int]], evaluation: list[list[int]]
) -> None:
    assert uncovered_share(calibration + more, evaluation) <= uncovered_share(calibration, evaluation)
