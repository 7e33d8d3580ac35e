"""The result of an evaluation as plain data: to JSON and back without loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from adapters.errors import EvaluationError
from adapters.evaluation.metrics.metric import Unit

SCHEMA_VERSION = 1
Who = Literal["base", "adapter"]


@dataclass(frozen=True, slots=True)
class Score:
    """A figure with its 95 % interval. `value` is None where it could not be had, and `note` says why."""

    value: float | None
    low: float | None
    high: float | None
    num_cases: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric, base against adapter; `difference` is adapter minus base on the same examples."""

    name: str
    title: str
    unit: Unit
    higher_is_better: bool
    base: Score | None
    adapter: Score | None
    difference: Score | None

    def of(self, who: Who) -> Score | None:
        """The score of one of the two."""
        return self.base if who == "base" else self.adapter


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """How one label fared."""

    label: str
    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts [true label][answered label]; the last column holds answers without a readable label."""

    who: Who
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    by_label: tuple[LabelFigures, ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Answers by length in characters: counts between `edges`, the last open at its end."""

    edges: tuple[int, ...]
    reference: tuple[int, ...]
    base: tuple[int, ...]
    adapter: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One example of a mistake. Texts are cut at `MAX_SHOWN_CHARACTERS`."""

    origin: str
    true_label: str | None
    predicted: str | None
    question: str
    reference: str
    answer: str
    base_answer: str | None


@dataclass(frozen=True, slots=True)
class MistakeGroup:
    """All mistakes of one kind: how many each made, and the worst of the one that is evaluated."""

    kind: str
    title: str
    explanation: str
    base: int | None
    adapter: int | None
    worst: tuple[ShownExample, ...]


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """One of the two that were asked. Tokens and seconds are those of the answers."""

    who: Who
    name: str
    num_answers: int
    num_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Everything that an evaluation found. `subject` is the one that mistakes are shown of."""

    schema_version: int
    created: str
    subject: Who
    num_examples: int
    facts: tuple[tuple[str, str], ...]
    systems: tuple[SystemFacts, ...]
    figures: tuple[Figure, ...]
    confusions: tuple[Confusion, ...]
    lengths: Lengths | None
    mistakes: tuple[MistakeGroup, ...]
    notes: tuple[str, ...]

    def figure(self, name: str) -> Figure | None:
        """The figure of that name."""
        return next((figure for figure in self.figures if figure.name == name), None)

    def to_json(self) -> bytes:
        """The report as JSON, indented."""
        return _adapter().dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, raw: bytes) -> EvaluationReport:
        """Read what `to_json` wrote. Raises EvaluationError for anything else or another schema."""
        try:
            report = _adapter().validate_json(raw)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the file"
            raise EvaluationError(f"this is no evaluation report: {where}: {problem['msg']}") from None
        if report.schema_version != SCHEMA_VERSION:
            raise EvaluationError(
                f"this report has schema {report.schema_version}, this version reads {SCHEMA_VERSION}; make it anew"
            )
        return report


def _adapter() -> TypeAdapter[EvaluationReport]:
    return TypeAdapter(EvaluationReport)
