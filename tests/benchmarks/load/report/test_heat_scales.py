"""Which share of requests within the limits has which colour, and what the legend says of it."""

from __future__ import annotations

import pytest

from benchmarks.load.client.record import Outcome, Record
from benchmarks.load.figures.slo import Slo
from benchmarks.load.report.heat_scales import attainment_scale, ttft_scale

SCALE = attainment_scale(Slo("test", ttft_seconds=0.5, tpot_seconds=0.1))


def record(ttft: float = 0.1, outcome: Outcome = "ok") -> Record:
    ended = None if outcome == "unfinished" else ttft
    return Record(0, 0.0, 0.0, "a", 1, outcome=outcome, event_seconds=[ttft], done_seconds=ended)


GOOD, LATE, REJECTED = record(), record(0.9), record(outcome="rejected")


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        ([GOOD, GOOD], "all"),
        ([GOOD] * 199 + [LATE], "99% or more"),
        ([GOOD] * 9 + [REJECTED], "90% or more"),
        ([GOOD, LATE], "50% or more"),
        ([GOOD, LATE, REJECTED], "fewer"),
        ([LATE, record(outcome="error")], "none"),
    ],
)
def test_late_rejected_and_failed_requests_lower_the_share(cell: list[Record], label: str) -> None:
    level = SCALE.level(cell)
    assert level is not None
    assert SCALE.labels[level] == label


@pytest.mark.parametrize("outcome", ["cancelled", "unloaded", "unfinished"])
def test_requests_that_count_for_nothing_leave_a_cell_as_it_is(outcome: Outcome) -> None:
    assert SCALE.level([record(outcome=outcome)]) is None
    assert SCALE.level([GOOD, record(outcome=outcome)]) == SCALE.level([GOOD])


def test_no_two_levels_look_alike_or_are_called_alike() -> None:
    for scale in (SCALE, ttft_scale(0.5)):
        assert len(scale.colours) == len(scale.labels) == len(set(scale.colours)) == len(set(scale.labels))


def test_the_legend_of_ttft_is_in_milliseconds_of_the_limit() -> None:
    assert ttft_scale(0.4).labels[1:4] == ("up to 200 ms", "up to 400 ms (limit)", "up to 800 ms")
    assert ttft_scale(0.4).labels[-2:] == ("above 1600 ms", "no answer")
