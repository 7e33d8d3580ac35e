"""What the queue's length means in seconds."""

from __future__ import annotations

import pytest

from serve.admission.service_rate import MIN_FINISHES, WINDOW_SECONDS, ServiceRate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def finish(rate: ServiceRate, clock: Clock, count: int, seconds_each: float) -> None:
    for _ in range(count):
        clock.now += seconds_each
        rate.finish()


def test_a_rate_is_told_from_enough_finishes() -> None:
    clock = Clock()
    rate = ServiceRate(clock)
    rate.wait()
    finish(rate, clock, MIN_FINISHES - 1, 0.5)
    assert rate.seconds_per_finish == pytest.approx(0.5)
    assert rate.requests_in(10) is None
    finish(rate, clock, 1, 0.5)
    assert rate.requests_in(10) == 20


def test_answers_that_end_together_are_one_step_of_many() -> None:
    clock = Clock()
    rate = ServiceRate(clock)
    rate.wait()
    for _ in range(10):
        clock.now += 2.0
        finish(rate, clock, 16, 0.0)
    assert rate.requests_in(1) == 8


def test_time_in_which_nobody_waits_is_left_out() -> None:
    clock = Clock()
    rate = ServiceRate(clock)
    rate.wait()
    finish(rate, clock, 40, 0.1)
    rate.idle()
    finish(rate, clock, 3, 1000.0)
    rate.wait()
    rate.wait()
    finish(rate, clock, 10, 0.1)
    assert rate.seconds_per_finish == pytest.approx(0.1)


def test_a_standstill_is_forgotten_when_it_goes_on() -> None:
    clock = Clock()
    rate = ServiceRate(clock)
    rate.wait()
    finish(rate, clock, 300, 0.05)
    finish(rate, clock, 1, 2 * WINDOW_SECONDS)
    finish(rate, clock, MIN_FINISHES, 0.05)
    assert rate.seconds_per_finish == pytest.approx(0.05)


def test_finishes_in_no_time_say_nothing() -> None:
    clock = Clock()
    rate = ServiceRate(clock)
    rate.wait()
    finish(rate, clock, 100, 0.0)
    assert (rate.requests_in(10), rate.seconds_per_finish) == (None, 0.0)
