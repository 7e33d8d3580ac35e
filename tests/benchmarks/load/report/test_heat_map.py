"""Which cell of a heat map has which colour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.client.record import Outcome, Record
from benchmarks.load.report.heat_map import MOST_ADAPTERS, heat_map
from benchmarks.load.report.heat_scales import ttft_scale

SCALE = ttft_scale(0.4)
NO_ANSWER = 6


def record(due: float, adapter: str | None, ttft: float = 0.1, outcome: Outcome = "ok") -> Record:
    first = due + ttft
    return Record(
        0,
        due,
        due,
        adapter,
        5,
        outcome=outcome,
        event_seconds=[first],
        done_seconds=first,
        completion_tokens=1,
    )


def test_a_cell_is_the_median_of_what_was_due_in_it_as_a_share_of_the_limit() -> None:
    records = [record(0.1, "a", 0.1), record(0.5, "a", 0.9), record(0.9, "a", 0.3)]  # median 0.3
    records += [record(2.5, "a", 0.05), record(1.5, "b", 0.8), record(2.1, "b", outcome="rejected")]
    found = heat_map(records, 3.0, SCALE)
    assert found is not None
    assert found.step_seconds == 1.0
    assert found.adapters == ("a", "b")
    assert found.levels == ((2, None, 0), (None, 3, NO_ANSWER))


def test_an_answer_in_one_piece_counts_with_all_of_its_time() -> None:
    whole = record(0.1, "a")
    whole.event_seconds, whole.done_seconds = [], 0.1 + 2.0
    found = heat_map([whole, record(0.1, None)], 1.0, SCALE)
    assert found is not None
    assert found.levels == ((5,), (0,))
    assert found.adapters == ("a", "base")


def test_one_adapter_is_no_map() -> None:
    assert heat_map([record(0.1, "a")], 1.0, SCALE) is None
    assert heat_map([record(0.1, "a"), record(0.1, "b", outcome="cancelled")], 1.0, SCALE) is None


@pytest.mark.parametrize(
    ("seconds", "step"), [(5.0, 1.0), (60.0, 1.0), (61.0, 2.0), (300.0, 5.0), (301.0, 10.0)]
)
def test_long_runs_have_wider_cells(seconds: float, step: float) -> None:
    found = heat_map([record(0.1, "a"), record(0.1, "b")], seconds, SCALE)
    assert found is not None
    assert found.step_seconds == step


@given(
    st.lists(
        st.tuples(st.floats(0, 99), st.integers(0, 99)), min_size=2, max_size=60, unique_by=lambda x: x[1]
    )
)
def test_every_adapter_that_is_shown_has_a_cell_for_each_of_its_requests(asked: list[tuple[float, int]]):
    found = heat_map([record(due, f"a{number}") for due, number in asked], 100.0, SCALE)
    assert found is not None
    assert len(found.adapters) == min(len(asked), MOST_ADAPTERS)
    assert all(len(row) == 50 for row in found.levels)
    shown = {f"a{number}": int(due // 2) for due, number in asked}
    for adapter, row in zip(found.adapters, found.levels, strict=True):
        assert [place for place, level in enumerate(row) if level is not None] == [shown[adapter]]
