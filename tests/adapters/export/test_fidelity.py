from __future__ import annotations

import pytest

from adapters.export.fidelity import Answer, compare_answers

SURE = Answer((1, 2, 3), (-0.1, -0.2, -0.3), (5.0, 5.0, 5.0))
UNDECIDED = Answer((1, 2, 3), (-0.1, -0.7, -0.3), (5.0, 1e-5, 5.0))


def test_equal_answers_are_faithful_and_their_logprobs_are_compared():
    found = Answer((1, 2, 3), (-0.1, -0.25, -0.3))
    outcome = compare_answers([SURE], [found])
    assert outcome.is_faithful
    assert outcome.share_equal == 1.0
    assert outcome.max_logprob_difference == pytest.approx(0.05)


def test_a_different_token_where_the_reference_was_sure_is_a_difference():
    outcome = compare_answers([SURE, SURE], [SURE, Answer((1, 9, 3), (-0.1, -0.2, -0.3))])
    assert not outcome.is_faithful
    assert (outcome.num_equal, outcome.num_ties, outcome.share_equal) == (1, 0, 0.5)


def test_a_different_token_where_the_reference_was_undecided_is_a_tie():
    outcome = compare_answers([UNDECIDED], [Answer((1, 9, 7), (-0.1, -0.7, -8.0))])
    assert outcome.is_faithful
    assert (outcome.num_equal, outcome.num_ties) == (0, 1)


def test_tokens_after_the_first_difference_stand_on_another_text_and_are_not_compared():
    outcome = compare_answers([SURE], [Answer((1, 9, 3), (-0.1, -7.0, -9.0))])
    assert outcome.num_tokens == 1
    assert outcome.max_logprob_difference == 0.0


def test_a_shorter_answer_is_a_difference():
    assert not compare_answers([SURE], [Answer((1, 2), (-0.1, -0.2))]).is_faithful


@pytest.mark.parametrize(("left", "right"), [([], []), ([SURE], []), ([SURE], [SURE, SURE])])
def test_sets_that_do_not_belong_together_are_refused(left, right):
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_answers(left, right)
