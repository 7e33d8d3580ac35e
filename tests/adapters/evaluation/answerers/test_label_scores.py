from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.evaluation.answerers.label_scores import (
    LabelPlace,
    exclusive,
    label_place,
    scores_from_top,
    token_pieces,
)


def test_a_label_in_a_token_of_its_own_is_found():
    assert label_place("Risk: 2", 6, ["Risk", ":", " ", "2", "<end>"]) == LabelPlace(3, "")


def test_a_label_that_shares_its_token_with_a_blank_is_found_with_the_blank():
    assert label_place("Risk: 2", 6, ["Risk", ":", " 2"]) == LabelPlace(2, " ")


def test_half_characters_before_the_label_are_passed_from_the_end():
    assert label_place("风：2", 2, ["\ufffd", "\ufffd", "：", "2", "<end>"]) == LabelPlace(3, "")


def test_a_label_between_half_characters_is_not_found():
    assert label_place("风2风", 1, ["\ufffd", "\ufffd", "2", "\ufffd", "\ufffd"]) is None


@given(st.lists(st.text(alphabet="ab 12", min_size=1, max_size=3), min_size=1, max_size=8), st.data())
def test_every_character_of_plain_tokens_has_its_place(tokens, data):
    text = "".join(tokens)
    start = data.draw(st.integers(0, len(text) - 1))
    place = label_place(text, start, tokens)
    assert place is not None
    before = "".join(tokens[: place.token])
    assert before + place.lead == text[:start]
    assert len(place.lead) < len(tokens[place.token])


def test_a_character_of_several_tokens_belongs_to_the_last_of_them():
    growing = ["\ufffd", "\ufffd", "风", "风：", "风：2", "风：2"]
    assert token_pieces("风：2", growing) == ["", "", "风", "：", "2", ""]
    assert label_place("风：2", 2, token_pieces("风：2", growing)) == LabelPlace(4, "")


def test_a_label_is_not_the_beginning_of_a_longer_one():
    ids = {"1": [7], "10": [7, 8], "100": [7, 8, 8], "2": [9]}
    found = exclusive({"1": 0.6, "10": 0.5, "100": 0.1, "2": 0.3}, ids)
    assert found == pytest.approx({"1": 0.1, "10": 0.4, "100": 0.1, "2": 0.3})


def test_likely_tokens_speak_for_the_one_label_that_they_begin():
    top = [("lo", 0.5), ("hi", 0.3), ("high", 0.1), ("x", 0.05)]
    found = scores_from_top(("low", "high"), "", top)
    assert found is not None
    assert found[0] == pytest.approx({"low": 0.5, "high": 0.4})
    assert found[1] == 0.0


def test_mass_that_was_not_reported_is_stated_where_a_label_is_missing():
    found = scores_from_top(("1", "2"), " ", [(" 1", 0.9), ("1", 0.04)])
    assert found is not None
    assert found[0] == {"1": 0.9, "2": 0.0}
    assert found[1] == pytest.approx(0.06)


def test_a_token_that_begins_two_labels_gives_no_scores():
    assert scores_from_top(("1", "10"), "", [("1", 0.9)]) is None
