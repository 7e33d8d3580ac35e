"""Percentiles and pairs, with numbers that can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import paired_differences, paired_ratios, percentile, spread

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
