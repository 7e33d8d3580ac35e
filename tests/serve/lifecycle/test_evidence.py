"""When answers say that a canary is worse, and when they only look like it."""

from __future__ import annotations

import random

import pytest
from scipy.stats import mannwhitneyu, norm  # type: ignore[import-untyped]

from serve.lifecycle.evidence import (
    MAX_ANSWERS,
    MAX_TIMES,
    Window,
    fails_more,
    is_slower,
    rank_score,
    typical_ratio,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def window(good: int, bad: int = 0, *, clock: Clock | None = None) -> Window:
    made = Window(60.0, clock or Clock())
    for number in range(good + bad):
        made.add(failed=number < bad, ttft_seconds=None if number < bad else 0.1)
    return made


@pytest.mark.parametrize(
    ("bad", "good", "speaks"),
    [
        (1, 1, False),
        (1, 9, False),
        (4, 0, True),
        (3, 17, False),
        (8, 12, True),
        (30, 470, False),
        (50, 450, True),
    ],
)
def test_errors_speak_only_beyond_chance(bad: int, good: int, speaks: bool) -> None:
    assert fails_more(window(good, bad), window(200), 0.05) is speaks


def test_what_fails_everybody_is_not_held_against_the_canary() -> None:
    assert not fails_more(window(10, 20), window(100, 200), 0.05)
    assert fails_more(window(0, 30), window(280, 20), 0.05)


def test_without_a_stable_version_the_bound_alone_decides() -> None:
    assert fails_more(window(10, 20), window(0), 0.05)
    assert not fails_more(window(0), window(0), 0.05)


def test_a_canary_at_half_of_its_bound_is_left_alone_for_ten_thousand_answers() -> None:
    drawn, clock = random.Random(7), Clock()
    alarms = 0
    for _ in range(20):
        canary, stable = Window(1e9, clock), window(1000, 25)
        for _ in range(500):
            canary.add(failed=drawn.random() < 0.025, ttft_seconds=None)
            alarms += fails_more(canary, stable, 0.05)
    assert alarms == 0


def test_old_answers_are_forgotten() -> None:
    clock = Clock()
    made = window(5, 5, clock=clock)
    assert (made.answers, made.failures, made.error_rate) == (10, 5, 0.5)
    clock.now += 59
    made.add(failed=False, ttft_seconds=0.3)
    clock.now += 2
    assert (made.answers, made.failures, made.error_rate, made.times()) == (1, 0, 0.0, [0.3])


def test_a_window_has_an_end_in_memory_too() -> None:
    made = window(MAX_ANSWERS, 10)
    assert (made.answers, made.failures) == (MAX_ANSWERS, 0)
    assert len(made.times()) == MAX_TIMES


def test_failed_answers_have_no_time() -> None:
    made = Window(60.0, Clock())
    made.add(failed=True, ttft_seconds=9.0)
    made.add(failed=False, ttft_seconds=None)
    assert made.times() == []
    assert made.error_rate == 0.5


def test_the_rank_score_is_scipys() -> None:
    drawn = random.Random(3)
    ours = [drawn.lognormvariate(0.2, 1) for _ in range(37)]
    theirs = [drawn.lognormvariate(0, 1) for _ in range(101)]
    expected = mannwhitneyu(ours, theirs, alternative="greater", method="asymptotic", use_continuity=False)
    assert norm.sf(rank_score(ours, theirs)) == pytest.approx(expected.pvalue, rel=1e-9)


def test_a_canary_that_is_three_times_slower_is_found_among_skewed_times() -> None:
    drawn = random.Random(5)
    stable = [drawn.lognormvariate(-2, 0.7) for _ in range(200)]
    canary = [3 * drawn.lognormvariate(-2, 0.7) for _ in range(60)]
    assert is_slower(canary, stable, 1.5)
    assert not is_slower(canary, stable, 4.0)
    assert typical_ratio(canary, stable) == pytest.approx(3, rel=0.5)


def test_one_very_slow_answer_says_nothing() -> None:
    assert not is_slower([0.1] * 19 + [60.0], [0.1] * 100, 1.5)


def test_like_times_never_speak() -> None:
    drawn = random.Random(11)
    for _ in range(200):
        stable = [drawn.expovariate(10) for _ in range(100)]
        canary = [drawn.expovariate(10) for _ in range(20)]
        assert not is_slower(canary, stable, 1.5)


def test_few_times_say_nothing() -> None:
    assert not is_slower([9.0] * 9, [0.1] * 100, 1.5)
    assert not is_slower([9.0] * 100, [0.1] * 9, 1.5)
    assert typical_ratio([], [0.1]) is None
    assert typical_ratio([0.1], [0.0]) is None
