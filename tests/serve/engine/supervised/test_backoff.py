"""How soon, and how often."""

from __future__ import annotations

from serve.engine.supervised.backoff import Backoff, RestartRules


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_restart_comes_at_once_and_each_further_one_twice_as_late() -> None:
    backoff = Backoff(RestartRules(max_restarts=7, max_delay_seconds=6.0), clock=Clock())
    assert [backoff.next_delay() for _ in range(8)] == [0.0, 1.0, 2.0, 4.0, 6.0, 6.0, 6.0, None]


def test_restarts_that_lie_back_are_forgotten() -> None:
    clock = Clock()
    backoff = Backoff(RestartRules(max_restarts=2, window_seconds=60.0), clock=clock)
    assert [backoff.next_delay(), backoff.next_delay(), backoff.next_delay()] == [0.0, 1.0, None]
    clock.now += 59.9
    assert (backoff.recent, backoff.next_delay()) == (2, None)
    clock.now += 0.2
    assert (backoff.recent, backoff.next_delay()) == (0, 0.0)


def test_without_restarts_there_is_none() -> None:
    assert Backoff(RestartRules(max_restarts=0)).next_delay() is None
