"""Folding is the same however a text is cut, and leads back to the original."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.review.folding import FoldedText, fold


@given(st.text(), st.text())
def test_a_text_can_be_folded_piece_by_piece(one: str, other: str) -> None:
    assert fold(one + other) == fold(one) + fold(other)
    made = FoldedText(one)
    made.add(other)
    assert (made.raw, made.folded) == (one + other, fold(one + other))


@given(st.text())
def test_folding_again_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(min_size=1), st.data())
def test_a_place_in_the_folded_text_leads_back_to_the_original(text: str, data: st.DataObject) -> None:
    made = FoldedText(text)
    place = data.draw(st.integers(0, len(made.folded)))
    start = made.raw_start(place)
    assert fold(text[start:]).endswith(made.folded[place:])
    assert fold(text[: made.raw_end(place)]).startswith(made.folded[:place])
    made.cut(start)
    assert (made.raw, made.folded) == (text[start:], fold(text[start:]))


def test_what_nobody_sees_goes_with_the_part_before_it() -> None:
    made = FoldedText("a\u0301\u200bb")
    assert made.folded == "ab"
    assert made.raw_end(1) == 3
    made.cut(made.raw_end(1))
    assert (made.before, made.raw, made.folded) == ("a", "b", "b")
