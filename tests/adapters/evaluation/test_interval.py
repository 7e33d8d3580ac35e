from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.evaluation.interval import bootstrap, paired_difference, resamples, value_of, wilson
from adapters.evaluation.metrics.metric import weighted_mean


def test_wilson_gives_the_published_figures():
    # Newcombe 1998, table I, method 3: 81 of 263 and 15 of 148. https://pubmed.ncbi.nlm.nih.gov/9595616/
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 0) is None


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_share_and_stays_between_0_and_1(pair):
    hits, total = pair
    low, high = wilson(hits, total) or (None, None)
    assert low is not None
    assert high is not None
    assert 0 <= low <= hits / total <= high <= 1


def test_every_draw_of_the_bootstrap_has_as_many_cases_as_there_are():
    draws = np.concatenate(list(resamples(7, draws=50, seed=1)))
    assert draws.shape == (50, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert (draws == np.concatenate(list(resamples(7, draws=50, seed=1)))).all()


def test_a_bootstrap_of_equal_cases_has_no_width():
    assert bootstrap(weighted_mean(np.full(9, 0.5)), 9, draws=100, seed=0) == (0.5, 0.5)


def test_a_bootstrap_is_about_as_wide_as_theory_says():
    values = np.array([0.0, 1.0] * 200)
    low, high = bootstrap(weighted_mean(values), 400, draws=2000, seed=0) or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)


def test_a_paired_difference_cancels_what_both_find_hard():
    hard = np.linspace(0, 1, 50)
    difference = paired_difference(weighted_mean(hard), weighted_mean(hard + 0.25))
    assert value_of(difference, 50) == pytest.approx(0.25)
    assert bootstrap(difference, 50, draws=200, seed=0) == pytest.approx((0.25, 0.25))


def test_a_statistic_without_a_value_has_no_interval():
    nothing = weighted_mean(np.zeros(4), np.zeros(4))
    assert value_of(nothing, 4) is None
    assert bootstrap(nothing, 4, draws=100, seed=0) is None
    assert bootstrap(nothing, 0, draws=100, seed=0) is None
