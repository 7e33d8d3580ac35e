"""One example with one model's answer, as metrics and the error analysis see it."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.data.example import Example
from adapters.evaluation.answer import Answer, Likelihood
from adapters.evaluation.labels import last_match
from adapters.evaluation.question import Question


@dataclass(frozen=True, slots=True)
class Case:
    """`predicted` is the label read from the answer, None where there is none that can be read."""

    example: Example
    question: Question | None
    answer: Answer | None
    true_label: str | None = None
    predicted: str | None = None
    likelihood: Likelihood | None = None

    @property
    def asked(self) -> bool:
        """Whether the model was asked this example: texts have no question."""
        return self.answer is not None

    @property
    def text(self) -> str:
        """What the model said."""
        return self.answer.text if self.answer is not None else ""

    @property
    def reference(self) -> str:
        """What the data say."""
        return self.question.reference if self.question is not None else ""


def true_label_of(example: Example, question: Question | None, pattern: str | None) -> str | None:
    """The example's own label; where the data name none, the one that the pattern finds in its answer."""
    if example.label is not None or question is None or pattern is None:
        return example.label
    found = last_match(pattern, question.reference)
    return found.label if found is not None else None
