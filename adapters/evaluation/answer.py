"""What a model said to one example, whoever asked it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One greedy answer.

    `label_scores` are probabilities of each label where the answer's own label stands, given everything before
    it; None where the answer has no readable label or its probabilities cannot be had. `unseen_mass` bounds
    what the scores may miss: the probability of tokens that were not reported. `token_ids` end with the end
    token where the model gave one; None where the way of asking does not tell. `seconds` is the time from
    asking to the whole answer, which for a batch is the batch's.
    """

    text: str
    num_tokens: int
    finish_reason: FinishReason
    seconds: float
    token_ids: tuple[int, ...] | None = None
    label_scores: Mapping[str, float] | None = None
    unseen_mass: float = 0.0


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Summed negative log-likelihood of an example's learned tokens, in nats, and how many there are."""

    nats: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Something that this way of asking cannot give, and why."""

    reason: str
