"""Percentiles and pairs, with numbers that can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.closed_loop.plan import Plan
from benchmarks.closed_loop.prompts import make_prompts
from benchmarks.errors import PlanError
from benchmarks.statistics import paired_differences, paired_ratios, percentile, spread
from benchmarks.turns import rotated

FLOATS = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.5),
        ([0.0, 10.0], 0.25, 2.5),
        ([10.0, 20.0, 30.0, 40.0, 50.0], 0.9, 46.0),
        ([1.0, 2.0], 0.0, 1.0),
        ([1.0, 2.0], 1.0, 2.0),
    ],
)
def test_a_percentile_lies_between_its_neighbours(values, share, expected):
    assert percentile(values, share) == pytest.approx(expected)


@given(st.lists(FLOATS, min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_percentiles_rise_with_their_share_and_stay_within_the_values(values, one, other):
    low, high = sorted((one, other))
    tolerance = 1e-6
    assert percentile(values, low) <= percentile(values, high) + tolerance
    assert min(values) - tolerance <= percentile(values, low) <= max(values) + tolerance


def test_no_values_have_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile([1.0], 1.5)


def test_a_spread_names_the_middle_both_ends_and_the_count():
    found = spread([4.0, 1.0, 2.0])
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 4.0, 3)


def test_ratios_and_differences_are_of_the_same_round():
    ours, theirs = {0: 9.0, 1: 20.0, 2: 5.0}, {2: 10.0, 0: 10.0, 7: 1.0}
    assert paired_ratios(ours, theirs) == [0.9, 0.5]
    assert paired_differences(ours, theirs) == [-1.0, -5.0]


def test_a_round_in_which_the_baseline_did_nothing_has_no_ratio():
    assert paired_ratios({0: 1.0, 1: 1.0}, {0: 0.0, 1: 2.0}) == [0.5]


@given(st.dictionaries(st.integers(0, 9), st.floats(0.1, 1e3), min_size=1))
def test_a_series_against_itself_has_ratio_one_and_difference_nought(series):
    assert paired_ratios(series, series) == [1.0] * len(series)
    assert paired_differences(series, series) == [0.0] * len(series)


def test_each_round_begins_with_another_contender():
    assert [rotated("abc", number) for number in range(4)] == [
        list("abc"),
        list("bca"),
        list("cab"),
        list("abc"),
    ]
    assert rotated([], 3) == []


def test_prompts_are_repeatable_equally_long_and_all_different():
    prompts = make_prompts(50, words=32, seed="1/0/8/vllm")
    assert prompts == make_prompts(50, words=32, seed="1/0/8/vllm")
    assert {len(prompt.split()) for prompt in prompts} == {32}
    assert len(set(prompts)) == 50
    assert not set(prompts) & set(make_prompts(50, words=32, seed="1/1/8/vllm"))


def test_a_plan_gives_each_worker_its_share_and_never_fewer_than_three():
    plan = Plan(concurrency=(1, 8, 32), rounds=5, requests=40, max_tokens=32)
    assert [plan.requests_per_worker(number) for number in plan.concurrency] == [40, 5, 3]


def test_a_plan_lists_everything_that_cannot_be_measured():
    plan = Plan(concurrency=(0, 4, 4), rounds=0, requests=0, max_tokens=1)
    with pytest.raises(PlanError, match=r"concurrency 0 .*twice.*0 blocks.*0 requests.*1 tokens"):
        plan.check()
