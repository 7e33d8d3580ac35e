"""Who answers the examples: the same questions through transformers or through a running gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from adapters.data.example import Example
from adapters.evaluation.answer import Answer, Likelihood, Unavailable
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.question import Question

# Told (done, total) as the work goes on.
Progress = Callable[[int, int], None]
# Given (place of the question, answer) as the answers come, in any order.
Keep = Callable[[int, Answer], None]


class Answerer(Protocol):
    """One model, base or adapter, that can be asked. Every answer is greedy, without penalties."""

    @property
    def description(self) -> str:
        """Who answers, for the report: a folder's name, or what the gateway called it."""

    def answer(
        self,
        questions: Sequence[Question],
        *,
        rule: LabelRule | None,
        progress: Progress,
        keep: Keep = ...,
    ) -> list[Answer]:
        """One answer for each question, in order; with a rule also the labels' probabilities.

        `keep` is told each of them, with its place, as soon as it is there.
        Raises EvaluationError.
        """

    def likelihoods(
        self, examples: Sequence[Example], *, progress: Progress
    ) -> list[Likelihood] | Unavailable:
        """How likely the model finds what each example teaches, in order. Raises EvaluationError."""


def keep_nothing(place: int, answer: Answer) -> None:
    """For whoever waits for all of them."""
    del place, answer


def quiet(done: int, total: int) -> None:
    """A progress that tells nobody."""
    del done, total
