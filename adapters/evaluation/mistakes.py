"""What is wrong with an answer, as one kind out of a fixed list, and how bad it is within its kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from adapters.evaluation.case import Case
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.metrics.metric import Judging
from adapters.evaluation.metrics.rouge import rouge_l
from adapters.evaluation.metrics.words import cjk_share, normalised, words_of

_SWITCH_SHARE = 0.5  # of CJK among the letters: the reference on one side, the answer on the other
_FEWEST_LETTER_WORDS = 3  # an answer of fewer words has no language to speak of


@dataclass(frozen=True, slots=True)
class MistakeKind:
    """One kind of mistake. An answer belongs to the first in `MISTAKES` that fits."""

    name: str
    title: str
    explanation: str


MISTAKES: tuple[MistakeKind, ...] = (
    MistakeKind("empty", "Empty", "nothing but white space was said"),
    MistakeKind("false_alarm", "False alarm", "truly low, answered as high"),
    MistakeKind("missed", "Missed", "truly high, answered as low"),
    MistakeKind("far_off", "Wrong label", "another label than the true one"),
    MistakeKind("off_by_one", "Off by one", "the neighbouring label"),
    MistakeKind(
        "language_switch", "Other language", "Chinese asked and another script answered, or the reverse"
    ),
    MistakeKind("cut_off", "Cut off", "the longest answer allowed was reached before the end"),
    MistakeKind("unreadable", "No label", "no label can be read from the answer"),
    MistakeKind(
        "wrong_reason", "Right label, other words", "the label is right, what stands around it is not"
    ),
    MistakeKind("other_text", "Other text", "not the reference, after normalisation"),
)


def mistake_of(case: Case, judging: Judging) -> str | None:
    """Name of the kind of mistake; None for a right answer and for an example that was not asked."""
    if case.answer is None:
        return None
    if not case.text.strip():
        return "empty"
    if judging.rule is not None and case.true_label is not None:
        wrong = _wrong_label(case, case.true_label, judging)
        if wrong is not None:
            return wrong
    if normalised(case.text) == normalised(case.reference):
        return None
    if _switched(case):
        return "language_switch"
    if case.answer.finish_reason == "length":
        return "cut_off"
    if judging.rule is None or case.true_label is None:
        return "other_text"
    if case.predicted is None:
        return "unreadable"
    same = _around_label(case.text, judging.rule) == _around_label(case.reference, judging.rule)
    return None if same else "wrong_reason"


def severity(case: Case, judging: Judging) -> tuple[float, float]:
    """Sorts mistakes of one kind, worst highest: by how far the label is off, then by how little fits."""
    distance = 0.0
    if (
        judging.rule is not None
        and judging.rule.ordinal
        and case.true_label is not None
        and case.predicted is not None
    ):
        distance = judging.rule.distance(case.true_label, case.predicted)
    return distance, 1.0 - rouge_l(case.text, case.reference)


def _wrong_label(case: Case, true: str, judging: Judging) -> str | None:
    """The kind for a readable label that is not the true one."""
    said, alarm, rule = case.predicted, judging.false_alarm, judging.rule
    if said is None or said == true or rule is None:
        return None
    if alarm is not None and true in alarm.low and said in alarm.high:
        return "false_alarm"
    if alarm is not None and true in alarm.high and said in alarm.low:
        return "missed"
    if rule.ordinal and abs(rule.index(true) - rule.index(said)) == 1:
        return "off_by_one"
    return "far_off"


def _switched(case: Case) -> bool:
    if len(words_of(case.text)) < _FEWEST_LETTER_WORDS:
        return False
    said, wanted = cjk_share(case.text), cjk_share(case.reference)
    return said is not None and wanted is not None and (said > _SWITCH_SHARE) != (wanted > _SWITCH_SHARE)


def _around_label(text: str, rule: LabelRule) -> Counter[str]:
    """Words of a text without its label, in any order."""
    found = rule.find(text)
    if found is None:
        return Counter(words_of(text))
    return Counter(words_of(text[: found.start] + " " + text[found.start + len(found.label) :]))
