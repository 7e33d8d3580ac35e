"""The algebra keeps what a change means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.export.factors import Factors, are_uniform, decompose, joined, relative_error

sizes = st.integers(min_value=1, max_value=12)
ranks = st.integers(min_value=1, max_value=6)
scales = st.floats(min_value=-8, max_value=8, allow_nan=False).filter(lambda value: abs(value) > 1e-3)
seeds = st.integers(min_value=0, max_value=2**31)


@st.composite
def changes(draw, size: tuple[int, int] | None = None) -> Factors:
    in_features, out_features = size or (draw(sizes), draw(sizes))
    rank = draw(ranks)
    generator = torch.Generator().manual_seed(draw(seeds))
    return Factors(
        torch.randn(rank, in_features, generator=generator),
        torch.randn(out_features, rank, generator=generator),
        draw(scales),
    )


def assert_same(found: Factors, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert float((found.dense() - expected).norm()) <= tolerance * max(float(expected.norm()), 1e-3)


@settings(max_examples=60, deadline=None)
@given(changes())
def test_folding_keeps_the_change_and_leaves_no_scale(change: Factors):
    folded = change.folded()
    assert folded.scale == 1.0
    assert_same(folded, change.dense(), 1e-6)


@settings(max_examples=60, deadline=None)
@given(changes(), st.integers(min_value=0, max_value=20))
def test_padding_changes_nothing_at_all(change: Factors, more: int):
    padded = change.padded(change.rank + more)
    assert padded.rank == change.rank + more
    assert torch.equal(padded.a[: change.rank], change.a)
    assert torch.equal(padded.b[:, : change.rank], change.b)
    assert torch.allclose(padded.dense(), change.dense(), rtol=1e-12, atol=0)


def test_factors_are_never_padded_to_less():
    with pytest.raises(ValueError, match="rank 3 cannot be padded to rank 2"):
        Factors(torch.ones(3, 4), torch.ones(5, 3)).padded(2)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.data())
def test_a_difference_of_two_changes_is_their_difference(in_features: int, out_features: int, data):
    size = (in_features, out_features)
    left, right = data.draw(changes(size)), data.draw(changes(size))
    difference = left.minus(right)
    assert difference.rank == left.rank + right.rank
    expected = left.dense() - right.dense()
    scale = float(left.dense().norm() + right.dense().norm())
    assert float((difference.dense() - expected).norm()) <= 1e-6 * scale


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(min_value=1, max_value=4), st.data())
def test_joined_changes_add_up_with_the_sum_of_the_ranks(
    in_features: int, out_features: int, count: int, data
):
    parts = [data.draw(changes((in_features, out_features))) for _ in range(count)]
    whole = joined(parts)
    assert whole.rank == sum(part.rank for part in parts)
    assert torch.equal(whole.a, torch.cat([part.a for part in parts]))  # A is kept bit for bit
    scale = sum(float(part.dense().norm()) for part in parts)
    assert float((whole.dense() - sum(part.dense() for part in parts)).norm()) <= 1e-6 * scale


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.data())
def test_the_order_of_joining_and_joining_in_steps_do_not_matter(in_features: int, out_features: int, data):
    size = (in_features, out_features)
    one, two, three = (data.draw(changes(size)) for _ in range(3))
    whole = joined([one, two, three]).dense()
    assert torch.allclose(joined([three, one, two]).dense(), whole, rtol=1e-5, atol=1e-4)
    assert torch.equal(joined([joined([one, two]), three]).dense(), whole)


@settings(max_examples=40, deadline=None)
@given(changes(), scales)
def test_a_weight_multiplies_the_change_and_leaves_the_factors(change: Factors, weight: float):
    weighted = change.times(weight)
    assert weighted.a is change.a and weighted.b is change.b
    assert_same(weighted, change.dense() * weight, 1e-12)


def test_nothing_is_not_joined():
    with pytest.raises(ValueError, match="no changes"):
        joined([])


@settings(max_examples=60, deadline=None)
@given(changes(), ranks)
def test_cutting_is_the_best_change_of_that_rank(change: Factors, rank: int):
    cut = change.cut(rank)
    assert cut.rank <= rank
    values = torch.linalg.svdvals(change.dense())
    best = float(values[rank:].norm())
    error = float((cut.dense() - change.dense()).norm())
    assert error <= best + 1e-5 * max(float(values.norm()), 1e-3)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, seeds, st.floats(min_value=0.0, max_value=0.9))
def test_the_chosen_rank_keeps_the_error_below_the_limit(in_features, out_features, seed, limit):
    delta = torch.randn(out_features, in_features, generator=torch.Generator().manual_seed(seed))
    decomposition = decompose(delta, max_rank=12)
    rank = decomposition.rank_for(limit)
    assert rank is not None
    assert relative_error(decomposition.factors(rank), delta) <= limit + 1e-5
    if rank > 1:
        assert relative_error(decomposition.factors(rank - 1), delta) > limit - 1e-5


def test_a_limit_beyond_the_kept_rank_has_no_rank():
    delta = torch.eye(8)
    assert decompose(delta, max_rank=4).rank_for(0.5) is None
    assert decompose(delta, max_rank=4).rank_for(0.8) == 3


def test_errors_of_nothing_are_zero_or_infinite():
    nothing = Factors(torch.zeros(1, 3), torch.zeros(2, 1))
    something = Factors(torch.ones(1, 3), torch.ones(2, 1))
    assert relative_error(nothing, torch.zeros(2, 3)) == 0.0
    assert relative_error(something, torch.zeros(2, 3)) == float("inf")
    assert decompose(torch.zeros(2, 3), max_rank=4).rank_for(0.01) == 1


def test_uniform_means_one_rank_and_one_scale():
    one = Factors(torch.ones(2, 3), torch.ones(4, 2), 2.0)
    assert are_uniform([one, one])
    assert not are_uniform([one, one.folded()])
    assert not are_uniform([one, one.padded(3)])
