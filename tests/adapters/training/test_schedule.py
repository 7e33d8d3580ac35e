"""The learning rate over a run, by steps and by time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.training.schedule import RunClock, Schedule, rate_factor

SCHEDULES: tuple[Schedule, ...] = ("cosine", "linear", "constant", "plateau")


@given(schedule=st.sampled_from(SCHEDULES), progress=st.floats(0, 1), warmup=st.floats(0, 0.5))
def test_the_factor_stays_between_0_and_1(schedule: Schedule, progress: float, warmup: float) -> None:
    assert 0.0 <= rate_factor(schedule, progress=progress, warmup=warmup) <= 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_to_the_peak(schedule: Schedule) -> None:
    rising = [rate_factor(schedule, progress=done, warmup=0.1) for done in (0.0, 0.05, 0.1)]
    assert rising == pytest.approx([0.0, 0.5, 1.0])


def test_the_course_after_warm_up() -> None:
    assert rate_factor("cosine", progress=0.55, warmup=0.1) == pytest.approx(0.5)
    assert rate_factor("cosine", progress=1.0, warmup=0.1) == pytest.approx(0.0)
    assert rate_factor("linear", progress=0.325, warmup=0.1) == pytest.approx(0.75)
    assert rate_factor("linear", progress=1.0, warmup=0.1) == pytest.approx(0.0)
    assert rate_factor("constant", progress=1.0, warmup=0.1) == 1.0
    assert rate_factor("plateau", progress=0.9, warmup=0.1, plateau=0.25) == 0.25


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_without_a_limit_progress_is_the_share_of_steps() -> None:
    clock = RunClock(10, now=Watch())
    clock.start()
    assert [clock.progress(step) for step in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert not clock.is_over()


def test_a_slow_machine_is_led_by_time_and_a_fast_one_by_steps() -> None:
    watch = Watch()
    clock = RunClock(1000, budget_seconds=60.0, now=watch)
    clock.start()
    watch.seconds += 30.0
    clock.read()
    assert clock.progress(10) == 0.5  # 1 % of the steps, half of the time
    assert clock.progress(900) == 0.9
    watch.seconds += 30.0
    clock.read()
    assert clock.progress(20) == 1.0
    assert clock.is_over()


def test_time_used_before_a_kill_counts() -> None:
    watch = Watch()
    clock = RunClock(1000, budget_seconds=60.0, before_seconds=45.0, now=watch)
    clock.start()
    assert clock.progress(0) == 0.75
    watch.seconds += 15.0
    assert clock.read() == 60.0
    assert clock.is_over()
