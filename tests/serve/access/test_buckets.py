"""The bucket against its promise, whatever is asked of it."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from serve.access.buckets import Bucket

SECOND = 1_000_000_000
limits = st.integers(1, 1000) | st.integers(1, 10**9)
# Waiting and asking, in turn.
asks = st.lists(st.tuples(st.integers(0, 90 * SECOND), st.floats(0, 1.2)), min_size=1, max_size=40)


@given(limit=limits, asks=asks)
@settings(max_examples=200, deadline=None)
def test_no_window_sees_more_than_the_limit_and_one_burst(limit: int, asks: list[tuple[int, float]]) -> None:
    bucket, now = Bucket(), 0
    taken: list[tuple[int, int]] = []
    for wait, share in asks:
        now += wait
        count = max(1, int(limit * share))
        if bucket.take(count, limit, now):
            taken.append((now, count))
    for first in range(len(taken)):
        total = 0
        for at, count in taken[first:]:
            total += count
            window = Fraction(at - taken[first][0], 60 * SECOND)
            assert total <= limit * (1 + window)


@given(limit=limits, asks=asks)
@settings(max_examples=100, deadline=None)
def test_what_is_refused_costs_nothing_and_may_be_had_when_it_is_said(
    limit: int, asks: list[tuple[int, float]]
) -> None:
    bucket, now = Bucket(), 0
    for wait, share in asks:
        now += wait
        count = min(limit, max(1, int(limit * share)))
        left = bucket.remaining(limit, now)
        seconds = bucket.seconds_until(count, limit, now)
        fits = bucket.take(count, limit, now)
        assert fits == (left >= count) == (seconds == 0)
        if fits:
            assert bucket.remaining(limit, now) == left - count
        else:
            assert bucket.remaining(limit, now) == left
            then = now + math.ceil(seconds) * SECOND
            assert copy.copy(bucket).remaining(limit, then) >= count


@given(limit=limits, count=st.integers(1, 1000), back=st.integers(0, 1000))
def test_what_is_put_back_can_be_taken_again(limit: int, count: int, back: int) -> None:
    count = min(count, limit)
    bucket = Bucket()
    assert bucket.take(count, limit, 0)
    bucket.put_back(min(count, back))
    assert bucket.remaining(limit, 0) == limit - count + min(count, back)
    bucket.put_back(10**6)
    assert bucket.remaining(limit, 0) == limit


def test_it_runs_empty_in_a_minute_and_no_clock_that_goes_back_fills_it() -> None:
    bucket = Bucket()
    assert bucket.take(60, 60, 10 * SECOND)
    assert not bucket.take(1, 60, 10 * SECOND)
    assert not bucket.take(1, 60, 0)
    assert bucket.seconds_to_empty(60, 10 * SECOND) == 60
    assert bucket.take(1, 60, 11 * SECOND)
    assert not bucket.is_empty(60, 70 * SECOND)
    assert bucket.is_empty(60, 71 * SECOND)
