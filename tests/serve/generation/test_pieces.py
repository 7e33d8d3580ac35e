"""The texts of a stream's tokens are the answer, and none is ahead of the review."""

from __future__ import annotations

import pytest

from serve.engine.protocol import Delta, TokenLogprob
from serve.errors import GenerationFailedError
from serve.generation.pieces import Piece, Pieces

END = 9


def delta(text: str, *tokens: tuple[int, str]) -> Delta:
    logprobs = [TokenLogprob(token_id, own, -0.5) for token_id, own in tokens]
    return Delta(0, text, token_ids=[token_id for token_id, _ in tokens], logprobs=logprobs)


def shown(pieces: list[Piece]) -> list[tuple[int, str, bool]]:
    return [(piece.token.token_id, piece.text, piece.special) for piece in pieces]


@pytest.fixture
def pieces() -> Pieces:
    return Pieces(frozenset({END}))


def test_each_token_leaves_with_the_text_that_it_brought(pieces: Pieces) -> None:
    pieces.add(delta("Pa", (1, "Pa")), "Pa")
    assert shown(list(pieces.due())) == [(1, "Pa", False)]
    pieces.add(delta("ris", (2, "ris")), "ris")
    assert shown(pieces.rest("")) == [(2, "ris", False)]
    assert pieces.text == "Paris"


def test_a_token_that_is_half_a_character_brings_no_text(pieces: Pieces) -> None:
    pieces.add(delta("", (1, "�")), "")
    assert shown(list(pieces.due())) == [(1, "", False)]
    pieces.add(delta("é", (2, "é")), "é")
    assert shown(list(pieces.due())) == [(2, "é", False)]


def test_a_token_without_text_that_ends_the_turn_is_special(pieces: Pieces) -> None:
    pieces.add(delta("a", (1, "a")), "a")
    assert list(pieces.due())
    pieces.add(delta("", (END, "<|im_end|>")), "")
    assert shown(pieces.rest("")) == [(END, "<|im_end|>", True)]
    assert pieces.text == "a"


def test_several_tokens_of_one_step_share_its_text(pieces: Pieces) -> None:
    pieces.add(delta("ab", (1, "a"), (2, "b")), "ab")
    assert shown(list(pieces.due())) == [(1, "a", False), (2, "b", False)]
    pieces.add(delta("é!", (3, "�"), (4, "é!")), "é!")
    assert shown(list(pieces.due())) == [(3, "", False), (4, "é!", False)]


def test_no_token_is_ahead_of_the_review(pieces: Pieces) -> None:
    pieces.add(delta("ab", (1, "ab")), "")
    pieces.add(delta("cd", (2, "cd")), "abc")
    assert shown(list(pieces.due())) == [(1, "ab", False)]
    pieces.add(delta("", (END, "<end>")), "")
    assert list(pieces.due()) == []
    assert shown(pieces.rest("d")) == [(2, "cd", False), (END, "<end>", True)]
    assert pieces.text == "abcd"


def test_text_that_the_review_changed_is_what_leaves(pieces: Pieces) -> None:
    pieces.add(delta("secret", (1, "secret")), "")
    pieces.add(delta("!", (2, "!")), "")
    rest = pieces.rest("***")
    assert "".join(piece.text for piece in rest) == pieces.text == "***"


def test_an_end_without_a_token_repeats_the_last_one(pieces: Pieces) -> None:
    pieces.add(delta("a", (1, "a")), "a")
    assert list(pieces.due())
    assert shown(pieces.rest("")) == [(1, "", False)]


def test_a_stream_without_tokens_has_failed(pieces: Pieces) -> None:
    with pytest.raises(GenerationFailedError):
        pieces.rest("")
