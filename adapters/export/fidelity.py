"""Compares two sets of greedy answers to the same prompts: are they one model's?

Two runs of the same weights differ by rounding. Where the two likeliest tokens are nearly equal, rounding
decides between them and everything after stands on another text; such a difference is a tie, not an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# In float32 the same weights in two engines differ by some 1e-5 nats; a gap below this may go either way.
TIE_NATS = 1e-3


@dataclass(frozen=True, slots=True)
class Answer:
    """One greedy answer: for each token its log probability and how far it lies above the next likeliest.

    Log probabilities are natural. `margins` may be empty where they are not known.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The outcome. `max_logprob_difference` counts tokens with the same text before them, in nats.

    `num_ties` of the `num_prompts - num_equal` differing answers part where the reference was undecided.
    """

    num_prompts: int
    num_equal: int
    num_ties: int
    num_tokens: int
    max_logprob_difference: float

    @property
    def share_equal(self) -> float:
        return self.num_equal / self.num_prompts

    @property
    def is_faithful(self) -> bool:
        """Whether every answer is equal or parts at a tie."""
        return self.num_equal + self.num_ties == self.num_prompts

    def __str__(self) -> str:
        return (
            f"{self.num_equal} of {self.num_prompts} answers equal ({self.share_equal:.1%}), "
            f"{self.num_ties} part at a tie; largest logprob difference {self.max_logprob_difference:.2e} nats "
            f"over {self.num_tokens} tokens"
        )


def compare_answers(
    reference: Sequence[Answer], found: Sequence[Answer], *, tie_nats: float = TIE_NATS
) -> Fidelity:
    """Compare answers pairwise; raise ValueError when the sets differ in size or are empty."""
    if not reference or len(reference) != len(found):
        raise ValueError(f"{len(reference)} reference answers and {len(found)} found ones cannot be compared")
    num_equal = num_ties = num_tokens = 0
    largest = 0.0
    for expected, answer in zip(reference, found, strict=True):
        common = _common_length(expected.token_ids, answer.token_ids)
        num_tokens += common
        pairs = zip(expected.logprobs[:common], answer.logprobs[:common], strict=True)
        largest = max([largest, *(abs(left - right) for left, right in pairs)])
        if expected.token_ids == answer.token_ids:
            num_equal += 1
        elif common < len(expected.margins) and expected.margins[common] <= tie_nats:
            num_ties += 1
    return Fidelity(len(reference), num_equal, num_ties, num_tokens, largest)


def _common_length(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))
