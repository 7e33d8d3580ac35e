"""Minutes are dealt out to runs, whatever has passed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.suite.budget import (
    FIRST_GUESS_SECONDS,
    LEAST_SECONDS,
    MOST_SECONDS,
    REPORT_SECONDS,
    Budget,
    Lengths,
    Need,
    check_minutes,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    minutes=st.floats(0.5, 60.0),
    needs=st.lists(
        st.builds(
            Need,
            runs=st.integers(1, 8),
            warmup=st.floats(0.0, 1.0),
            window=st.floats(0.5, 2.0),
        ),
        min_size=1,
        max_size=6,
    ),
    besides=st.floats(0.0, 20.0),
)
def test_parts_end_in_time_whatever_their_runs_take_besides(minutes, needs, besides):
    clock = Clock()
    budget = Budget(minutes, clock)
    for place, need in enumerate(needs):
        lengths = budget.lengths(need, needs[place + 1 :])
        if lengths is None:
            continue
        assert lengths.seconds >= 0.9 * LEAST_SECONDS * need.window
        assert lengths.seconds <= MOST_SECONDS * need.window + 0.05
        seconds = need.runs * (lengths.warmup_seconds + lengths.seconds + besides)
        clock.now += seconds
        budget.took(seconds, need, lengths)
    # Beyond the end only by what the first part could not know.
    unknown = max(0.0, besides - FIRST_GUESS_SECONDS) * max(need.runs for need in needs)
    assert clock.now <= 1000.0 + max(60.0 * minutes, 0.0) + unknown + 0.1 * sum(need.runs for need in needs)


def test_runs_that_take_longer_shorten_those_that_follow():
    found: dict[float, float] = {}
    for besides in (2.0, 10.0):
        clock = Clock()
        budget = Budget(5.0, clock)
        first = budget.lengths(Need(2), [Need(4)])
        assert first is not None
        seconds = 2 * (first.warmup_seconds + first.seconds + besides)
        clock.now += seconds
        budget.took(seconds, Need(2), first)
        rest = budget.lengths(Need(4))
        assert rest is not None
        found[besides] = rest.seconds
    assert found[10.0] < found[2.0]


def test_the_windows_of_one_part_stand_to_anothers_as_they_should():
    lengths = Budget(3.0, Clock()).lengths(Need(1, warmup=0.5, window=2.0), [Need(1)])
    plain = (180.0 - REPORT_SECONDS - 2 * FIRST_GUESS_SECONDS) / (2.5 + 1.2)
    assert lengths == Lengths(round(0.5 * plain, 1), round(2.0 * plain, 1))


def test_when_time_is_short_parts_are_short_before_they_are_left_out():
    budget = Budget(1.0, Clock())
    assert budget.lengths(Need(2), [Need(4)]) == Lengths(0.2 * LEAST_SECONDS, LEAST_SECONDS)


def test_a_part_for_which_no_time_is_left_gets_none():
    clock = Clock()
    budget = Budget(1.0, clock)
    clock.now += 55.0
    assert budget.lengths(Need(1)) is None
    clock.now += 100.0
    assert budget.left_seconds == 0.0


def test_closed_loops_take_as_many_runs_as_there_are_concurrencies():
    assert Need(2, each_concurrency=True).over(3) == Need(6)
    assert Need(2).over(3) == Need(2)


def test_minutes_that_are_too_few_are_refused_with_how_many_are_enough():
    needs = [Need(6), Need(4)]
    with pytest.raises(
        LoadOptionError, match=r"--minutes 1 is too short for 10 runs; give ([\d.]+) or more"
    ) as e:
        check_minutes(1.0, needs, start_seconds=20.0)
    enough = float(str(e.value).split("give ")[1].split()[0])
    check_minutes(enough, needs, start_seconds=20.0)
