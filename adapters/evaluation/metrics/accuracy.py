"""Accuracy of the label: right answers over all labelled examples; an answer without a label is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging, Measurement, share


class Accuracy:
    """Share of right labels; beside it the share of answers in which no label can be read."""

    name = "accuracy"
    figures = ("accuracy", "unreadable")
    needs: Literal["labels"] = "labels"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        del judging
        labelled = [case.asked and case.true_label is not None for case in cases]
        right = [case.predicted == case.true_label for case in cases]
        unread = [case.predicted is None for case in cases]
        return (
            share("accuracy", "Accuracy", right, labelled, note="unreadable counts as wrong"),
            share("unreadable", "No label readable", unread, labelled, higher_is_better=False),
        )
