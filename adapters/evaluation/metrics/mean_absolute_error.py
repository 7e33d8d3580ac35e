"""Mean absolute error of ordinal labels: by how many levels an answer is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging, Measurement, weighted_mean


class MeanAbsoluteError:
    """Over the answers in which a label can be read; how many those are stands beside it."""

    name = "mean_absolute_error"
    figures = ("mean_absolute_error",)
    needs: Literal["ordinal labels"] = "ordinal labels"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        import numpy as np

        distances, counts = np.zeros(len(cases)), np.zeros(len(cases))
        labelled = 0
        for index, case in enumerate(cases):
            if not case.asked or case.true_label is None or judging.rule is None:
                continue
            labelled += 1
            if case.predicted is not None:
                distances[index] = judging.rule.distance(case.true_label, case.predicted)
                counts[index] = 1.0
        read = int(counts.sum())
        note = "" if read == labelled else f"over the {read} of {labelled} answers with a readable label"
        return (
            Measurement(
                "mean_absolute_error",
                "Mean level error",
                "levels",
                False,
                read,
                weighted_mean(distances, counts) if read else None,
                note if read else "no answer has a readable label",
            ),
        )
