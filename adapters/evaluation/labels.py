"""Labels: which there are, in which order, and where one stands in an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adapters.errors import EvaluationError

MAX_LABELS = 256
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class FoundLabel:
    """A label in a text and the character where it starts."""

    label: str
    start: int


def last_match(pattern: str, text: str) -> FoundLabel | None:
    """What the pattern's group holds at its last match, whatever it is."""
    matches = list(re.finditer(pattern, text))
    if not matches or matches[-1][1] is None:
        return None
    return FoundLabel(matches[-1][1], matches[-1].start(1))


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How labels are read from answers.

    `pattern` is a regex with one group, None where the whole answer is the label. `labels` are in ascending
    order where `ordinal`.
    """

    pattern: str | None
    labels: tuple[str, ...]
    ordinal: bool

    def find(self, text: str) -> FoundLabel | None:
        """The last label in a text; None where there is none, or one that is not among the labels."""
        if self.pattern is None:
            label = text.strip()
            return FoundLabel(label, text.index(label)) if label in self.labels else None
        found = last_match(self.pattern, text)
        return found if found is not None and found.label in self.labels else None

    @property
    def numeric(self) -> bool:
        """Whether every label is a whole number."""
        return all(_WHOLE_NUMBER.fullmatch(label) for label in self.labels)

    def index(self, label: str) -> int:
        """Position of a label in the order."""
        return self.labels.index(label)

    def distance(self, left: str, right: str) -> float:
        """How far apart two ordinal labels are: as numbers where they are numbers, else in positions."""
        if self.numeric:
            return float(abs(int(left) - int(right)))
        return float(abs(self.index(left) - self.index(right)))


@dataclass(frozen=True, slots=True)
class FalseAlarmRule:
    """A true label among `low` that is answered as one of `high` is a false alarm; the reverse is a miss."""

    low: frozenset[str]
    high: frozenset[str]
    text: str


def label_rule(true_labels: Iterable[str], *, pattern: str | None, labels: Sequence[str]) -> LabelRule:
    """The rule for data with these labels; `labels` is the order that the user gave, if any.

    Raises EvaluationError for a label in the data that the given order lacks, or for too many of them.
    """
    found = set(true_labels)
    if labels:
        missing = sorted(found - set(labels))
        if missing:
            raise EvaluationError(
                f"the data have the labels {', '.join(missing[:8])}, which --labels ({', '.join(labels)}) lacks; "
                "add them in their place"
            )
        return LabelRule(pattern, tuple(labels), ordinal=True)
    if len(found) > MAX_LABELS:
        raise EvaluationError(
            f"the data have {len(found)} different labels, more than {MAX_LABELS}; is this the label column? "
            "Leave labels out of the data to measure texts alone"
        )
    numeric = bool(found) and all(_WHOLE_NUMBER.fullmatch(label) for label in found)
    ordered = sorted(found, key=int) if numeric else sorted(found)
    return LabelRule(pattern, tuple(ordered), ordinal=numeric)


def false_alarm_rule(text: str, rule: LabelRule) -> FalseAlarmRule:
    """Read `LOW:HIGH`, each a comma list of labels or of ranges `a-b` in the labels' order.

    Raises EvaluationError for another form, an unknown label, or a label on both sides.
    """
    low_text, colon, high_text = text.partition(":")
    if not colon:
        raise EvaluationError(
            f"--false-alarm {text!r} is not of the form LOW:HIGH, such as 0-1:4-5 (0 to 1 answered as 4 to 5)"
        )
    low, high = _members(low_text, rule, text), _members(high_text, rule, text)
    both = sorted(low & high)
    if both:
        raise EvaluationError(f"--false-alarm {text!r} has {', '.join(both)} on both sides; keep them apart")
    return FalseAlarmRule(low, high, text)


def _members(side: str, rule: LabelRule, text: str) -> frozenset[str]:
    members: set[str] = set()
    for part in (piece.strip() for piece in side.split(",")):
        first, dash, last = part.partition("-")
        if part in rule.labels:
            members.add(part)
        elif dash and first in rule.labels and last in rule.labels:
            start, end = sorted((rule.index(first), rule.index(last)))
            members.update(rule.labels[start : end + 1])
        elif dash and rule.numeric and _WHOLE_NUMBER.fullmatch(first) and _WHOLE_NUMBER.fullmatch(last):
            # Not every number of a range need occur in the data.
            members.update(label for label in rule.labels if int(first) <= int(label) <= int(last))
        else:
            raise EvaluationError(
                f"--false-alarm {text!r} names {part!r}, which is no label of the data "
                f"({', '.join(rule.labels[:16])}) nor a range of them; name others, or the order with --labels"
            )
    return frozenset(members)
