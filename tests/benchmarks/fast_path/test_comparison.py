"""What counts as the same, and what as decided by rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fast_path.comparison import Spread, compare, tie_bound
from benchmarks.fast_path.reference import Answered, Judged

EXACT = (-0.5, -1.0)


def answered(
    tokens: tuple[int, ...], logprobs: tuple[tuple[float, ...], ...], *, others: tuple[int, ...] = (9,)
) -> Answered:
    """An answer whose tokens all have the same other candidates."""
    candidates = tuple((token, *others)[: len(row)] for token, row in zip(tokens, logprobs, strict=True))
    return Answered(number=0, adapter=None, prompt_sha256="", candidates=candidates, logprobs=logprobs)


def judged(*rows: tuple[float, ...]) -> Judged:
    return Judged(number=0, logprobs=rows)


def test_the_bound_is_twice_the_largest_error_of_the_two_likeliest() -> None:
    reference = answered((1, 2), ((-0.5, -1.25), (-0.5, -1.0, -3.0)), others=(8, 9))
    exact = judged((-0.5, -1.0), (-0.375, -1.0, -9.0))  # the third candidate does not count
    assert tie_bound([(reference, exact)]) == 0.5
    assert tie_bound([]) == 0.0


@given(
    exact=st.tuples(st.floats(-5, -0.1), st.floats(-5, -0.1)),
    own=st.tuples(st.floats(-1e-3, 1e-3), st.floats(-1e-3, 1e-3)),
    other=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_a_side_that_rounds_no_worse_than_the_reference_parts_only_at_ties(
    exact: tuple[float, float], own: tuple[float, float], other: tuple[float, float]
) -> None:
    reference_logprobs = [exact[token] + own[token] for token in (0, 1)]
    chosen = reference_logprobs.index(max(reference_logprobs))
    order = (chosen, 1 - chosen)
    reference = answered((chosen,), (tuple(reference_logprobs[t] for t in order),), others=(1 - chosen,))
    truth = judged(tuple(exact[token] for token in order))
    bound = tie_bound([(reference, truth)])
    found_logprobs = [exact[token] + other[token] * bound / 2 * 0.999 for token in (0, 1)]
    token = found_logprobs.index(max(found_logprobs))
    found = answered((token,), ((found_logprobs[token],),))
    outcome = compare([(reference, truth)], [found], tie_nats=bound * (1 + 1e-9) + 1e-12)
    assert outcome.is_equal
    assert outcome.num_equal == (token == chosen)


@given(gap=st.floats(1e-6, 3), bound=st.floats(0, 1))
def test_a_parting_is_a_tie_exactly_when_the_exact_gap_is_within_the_bound(gap: float, bound: float) -> None:
    reference = answered((1,), ((-0.5, -0.5 - gap),), others=(2,))
    for sign in (1, -1):  # the reference may itself have chosen the one that is exactly the less likely
        truth = judged((0.0, -sign * gap))
        outcome = compare([(reference, truth)], [answered((2,), ((-0.5,),))], tie_nats=bound)
        assert outcome.is_equal == (gap <= bound)
        assert outcome.partings[0].gap_nats == pytest.approx(sign * gap)


def test_a_token_that_the_reference_did_not_think_of_is_no_tie() -> None:
    reference = answered((1,), (EXACT,), others=(2,))
    outcome = compare([(reference, judged(EXACT))], [answered((3,), ((-0.5,),))], tie_nats=100.0)
    (parting,) = outcome.partings
    assert (parting.gap_nats, parting.is_tie, outcome.is_equal) == (None, False, False)


def test_differences_count_only_tokens_with_the_same_text_before_them() -> None:
    reference = answered((1, 2, 3), ((-1.0, -2.0), (-1.0, -1.0), (-1.0, -2.0)), others=(9,))
    truth = judged((-1.25, -2.0), (-1.0, -1.0), (-1.0, -2.0))
    found = answered((1, 9, 3), ((-1.125,), (-1.0,), (-50.0,)))
    outcome = compare([(reference, truth)], [found], tie_nats=0.0)
    assert (outcome.num_answers, outcome.num_equal, outcome.num_ties, outcome.num_tokens) == (1, 0, 1, 1)
    assert outcome.partings[0].position == 1
    assert outcome.difference == Spread(0.125, 0.125)
    assert outcome.reference_error == Spread(0.25, 0.25)
    assert outcome.found_error == Spread(0.125, 0.125)
    assert outcome.share_nearer == 1.0


def test_other_answers_than_the_reference_has_are_refused() -> None:
    one = answered((1,), (EXACT,))
    with pytest.raises(ValueError, match="not the same"):
        compare([], [], tie_nats=0.0)
    with pytest.raises(ValueError, match="not the same"):
        compare([(one, judged(EXACT))], [one.model_copy(update={"number": 1})], tie_nats=0.0)
    with pytest.raises(ValueError, match="longer"):
        compare([(one, judged(EXACT))], [answered((1, 2), (EXACT, EXACT))], tie_nats=0.0)
