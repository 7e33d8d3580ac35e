"""Tables behind a report: confusion matrix, figures of each label, lengths, mistakes."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging
from adapters.evaluation.mistakes import MISTAKES, mistake_of, severity
from adapters.evaluation.report import Confusion, LabelFigures, Lengths, MistakeGroup, ShownExample, Who

MAX_SHOWN_CHARACTERS = 2000
_MAX_MATRIX_LABELS = 24  # more make a page that nobody reads
_NUM_BINS = 16
_LONGEST_SHOWN_QUANTILE = 0.99


def confusion_of(cases: Sequence[Case], judging: Judging, who: Who) -> Confusion | None:
    """None for data without labels, or with too many for a matrix."""
    if judging.rule is None or not 0 < len(judging.rule.labels) <= _MAX_MATRIX_LABELS:
        return None
    labels = judging.rule.labels
    place = {label: index for index, label in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for case in cases:
        if case.asked and case.true_label is not None:
            column = place[case.predicted] if case.predicted is not None else len(labels)
            counts[place[case.true_label]][column] += 1
    by_label = tuple(
        _label_figures(
            label,
            right=counts[index][index],
            true=sum(counts[index]),
            said=sum(row[index] for row in counts),
        )
        for index, label in enumerate(labels)
    )
    return Confusion(who, labels, tuple(tuple(row) for row in counts), by_label)


def _label_figures(label: str, *, right: int, true: int, said: int) -> LabelFigures:
    precision = right / said if said else 0.0
    recall = right / true if true else 0.0
    f1 = 2 * right / (true + said) if true + said else 0.0
    return LabelFigures(label, true, precision, recall, f1)


def lengths_of(base: Sequence[Case] | None, adapter: Sequence[Case] | None) -> Lengths | None:
    """Histogram of reference and answers on common bins; None where nothing was asked."""
    import numpy as np

    asked = [case for case in (adapter or base or ()) if case.asked]
    if not asked:
        return None
    reference = [len(case.reference) for case in asked]
    said = {
        "base": [len(case.text) for case in base or () if case.asked],
        "adapter": [len(case.text) for case in adapter or () if case.asked],
    }
    together = np.array([*reference, *said["base"], *said["adapter"]])
    longest = max(1, int(np.quantile(together, _LONGEST_SHOWN_QUANTILE)))
    width = -(-(longest + 1) // _NUM_BINS)
    edges = [width * index for index in range(_NUM_BINS + 1)]

    def count(values: Sequence[int]) -> tuple[int, ...]:
        bins = [0] * _NUM_BINS
        for value in values:
            bins[min(value // width, _NUM_BINS - 1)] += 1
        return tuple(bins)

    return Lengths(tuple(edges), count(reference), count(said["base"]), count(said["adapter"]))


def mistakes_of(
    base: Sequence[Case] | None, adapter: Sequence[Case] | None, judging: Judging, *, worst: int
) -> tuple[MistakeGroup, ...]:
    """Every kind of mistake that was made, with the worst examples of the adapter (else of the base)."""
    subject = adapter if adapter is not None else base or ()
    kinds = {
        "base": [mistake_of(case, judging) for case in base or ()],
        "adapter": [mistake_of(case, judging) for case in adapter or ()],
    }
    own = kinds["adapter" if adapter is not None else "base"]
    groups = []
    for kind in MISTAKES:
        places = [place for place, name in enumerate(own) if name == kind.name]
        places.sort(key=lambda place: severity(subject[place], judging), reverse=True)
        counts = {who: names.count(kind.name) for who, names in kinds.items()}
        if not any(counts.values()):
            continue
        groups.append(
            MistakeGroup(
                kind.name,
                kind.title,
                kind.explanation,
                counts["base"] if base is not None else None,
                counts["adapter"] if adapter is not None else None,
                tuple(
                    _shown(subject[place], base[place] if base is not None and adapter is not None else None)
                    for place in places[:worst]
                ),
            )
        )
    return tuple(groups)


def _shown(case: Case, of_base: Case | None) -> ShownExample:
    return ShownExample(
        origin=str(case.example.origin),
        true_label=case.true_label,
        predicted=case.predicted,
        question=cut(case.question.shown if case.question is not None else ""),
        reference=cut(case.reference),
        answer=cut(case.text),
        base_answer=cut(of_base.text) if of_base is not None else None,
    )


def cut(text: str) -> str:
    """A text as long as reports show it."""
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:MAX_SHOWN_CHARACTERS]}… ({len(text) - MAX_SHOWN_CHARACTERS} characters more)"
