"""Probabilities of labels where an answer states its own: the arithmetic that all ways of asking share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """The token that holds a label's first character, and the text in that token before the label."""

    token: int
    lead: str


def label_place(text: str, start: int, token_texts: Sequence[str]) -> LabelPlace | None:
    """Where character `start` of `text` stands among tokens that decode, one by one, to `token_texts`.

    A token of half a character decodes to something that is not in the text, so the tokens are laid along the
    text from its beginning and, where that fails before `start`, from its end. None where neither reaches it.
    """
    position = 0
    for index, piece in enumerate(token_texts):
        if not text.startswith(piece, position):
            break
        if position <= start < position + len(piece):
            return LabelPlace(index, text[position:start])
        position += len(piece)
    position = len(text)
    for index in range(len(token_texts) - 1, -1, -1):
        piece = token_texts[index]
        if not text.endswith(piece, 0, position):
            if position == len(text):
                continue  # an end token, which is not part of the text
            return None
        position -= len(piece)
        if position <= start < position + len(piece):
            return LabelPlace(index, text[position:start])
    return None


def token_pieces(text: str, growing: Sequence[str]) -> list[str]:
    """What each token adds to `text`, from the decoded texts of the first one, two, three, ... tokens.

    The pieces make up the text: a token that only begins a character adds nothing, the one that ends it all.
    """
    pieces, position = [], 0
    for decoded in growing:
        reached = max(position, _num_equal(decoded, text))
        pieces.append(text[position:reached])
        position = reached
    return pieces


def _num_equal(left: str, right: str) -> int:
    """Characters that two texts have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def exclusive(probabilities: Mapping[str, float], token_ids: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Probability that a label and no longer one is said: "1" without the share of "10".

    Both maps are by label; `probabilities` are those of the label's tokens, whatever follows.
    """
    exact: dict[str, float] = {}
    for label in sorted(probabilities, key=lambda each: -len(token_ids[each])):
        own = tuple(token_ids[label])
        longer = sum(
            exact[other]
            for other in exact
            if len(token_ids[other]) > len(own) and tuple(token_ids[other][: len(own)]) == own
        )
        exact[label] = max(0.0, probabilities[label] - longer)
    return {label: exact[label] for label in probabilities}


def scores_from_top(
    labels: Sequence[str], lead: str, top: Sequence[tuple[str, float]]
) -> tuple[dict[str, float], float] | None:
    """(probability of each label, mass that was not reported) from the likeliest tokens (text, probability).

    A token speaks for a label when its text begins the label and no other one. None where a token begins several
    labels, because their shares cannot be told apart. Labels without a token get 0.
    """
    scores = dict.fromkeys(labels, 0.0)
    for text, probability in top:
        if not text.startswith(lead) or len(text) == len(lead):
            continue
        begun = [label for label in labels if label.startswith(text[len(lead) :])]
        if len(begun) > 1:
            return None
        if begun:
            scores[begun[0]] += probability
    unseen = max(0.0, 1.0 - sum(probability for _, probability in top))
    missing = any(score == 0.0 for score in scores.values())
    return scores, unseen if missing else 0.0
