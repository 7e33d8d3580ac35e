"""Macro F1: the plain mean of every label's F1, so that rare labels count as much as common ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from adapters.evaluation.case import Case
from adapters.evaluation.metrics.metric import Judging, Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class MacroF1:
    """Over the labels that occur in the data; an answer without a label is a miss of its true one."""

    name = "macro_f1"
    figures = ("macro_f1",)
    needs: Literal["labels"] = "labels"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        import numpy as np
        from sklearn.metrics import f1_score  # type: ignore[import-untyped]

        known = judging.rule.labels if judging.rule is not None else ()
        labelled = [case for case in cases if case.asked and case.true_label is not None]
        labels = [label for label in known if any(case.true_label == label for case in labelled)]
        if not labelled:
            return (_figure(0, None, None),)
        value = f1_score(
            [case.true_label for case in labelled],
            [case.predicted if case.predicted is not None else "" for case in labelled],
            labels=labels,
            average="macro",
            zero_division=0,
        )
        true = np.array([[case.asked and case.true_label == label for label in labels] for case in cases])
        said = np.array(
            [
                [case.asked and case.true_label is not None and case.predicted == label for label in labels]
                for case in cases
            ]
        )

        def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            both = weights @ (true & said)  # [draws, labels]
            either = weights @ true + weights @ said
            f1 = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0)
            mean: NDArray[np.float64] = f1.mean(axis=1)
            return mean

        return (_figure(len(labelled), float(value), statistic),)


def _figure(num_cases: int, value: float | None, statistic: object) -> Measurement:
    return Measurement(
        "macro_f1",
        "Macro F1",
        "score",
        True,
        num_cases,
        statistic,  # type: ignore[arg-type]
        "" if num_cases else "no example has a label",
        value=value,
    )
