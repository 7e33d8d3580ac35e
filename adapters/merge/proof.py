"""Holds what a merged base answers, read back from its files, against the base with the adapter on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.errors import MergeError
from adapters.export.continuation import continue_greedily, score_answers
from adapters.export.fidelity import Answer, Fidelity, compare_answers

# What a log probability of a greedy token may be off by, in nats. In float32 a merge only adds in another order.
# In bfloat16 every weight is rounded: measured on the default base with the risk adapter, see
# docs/merge-and-compose.md.
MAX_DIFFERENCE_NATS = {"float32": 0.01, "bfloat16": 0.5, "float16": 0.1}


@dataclass(frozen=True, slots=True)
class Expected:
    """What base and adapter answer to `prompts` (token ids), before the merge.

    `effect_nats` is the largest difference that the adapter makes to a log probability of those answers.
    """

    prompts: Sequence[Sequence[int]]
    answers: Sequence[Answer]
    effect_nats: float


def ask_adapted(model: Any, prompts: Sequence[Sequence[int]], *, num_tokens: int) -> Expected:
    """Greedy answers of the PEFT model `model`. Raises MergeError where the adapter changes none of them."""
    greedy = continue_greedily(model, prompts, num_tokens=num_tokens)
    # Scored in one reading as the others are: the same weights then give the same bits.
    answers = score_answers(model, prompts, greedy)
    with model.disable_adapter():
        base = score_answers(model, prompts, answers)
    effect = _largest(answers, base)
    if effect == 0.0:
        raise MergeError(
            "The adapter changes nothing: with and without it the base answers alike to the last digit. It was "
            "saved before the first training step, or its weights belong to other modules."
        )
    return Expected(prompts, answers, effect)


def compare_merged(model: Any, expected: Expected, *, dtype: str) -> tuple[Fidelity, float]:
    """(greedy answers compared, largest difference of a log probability in nats) of the merged `model`.

    Raises MergeError above the bound of `dtype`, the type that the weights were written in.
    """
    scored = score_answers(model, expected.prompts, expected.answers)
    difference = _largest(expected.answers, scored)
    num_tokens = max(len(answer.token_ids) for answer in expected.answers)
    found = continue_greedily(model, expected.prompts, num_tokens=num_tokens)
    bound = MAX_DIFFERENCE_NATS[dtype]
    if not difference <= bound:  # NaN is refused too
        way_out = "" if dtype == "float32" else " Write it with --dtype float32."
        raise MergeError(
            f"The merged base does not answer as base and adapter do: a log probability differs by "
            f"{difference:.3g} nats, at most {bound} is the rounding of {dtype}. Nothing was kept.{way_out}"
        )
    return compare_answers(expected.answers, found), difference


def _largest(left: Sequence[Answer], right: Sequence[Answer]) -> float:
    return max(
        abs(one - other)
        for first, second in zip(left, right, strict=True)
        for one, other in zip(first.logprobs, second.logprobs, strict=True)
    )
