"""AUC: for each label against the rest, how well its probability ranks its own examples above the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from adapters.evaluation.case import Case
from adapters.evaluation.interval import Statistic
from adapters.evaluation.metrics.metric import Judging, Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_PAIRS = 25_000_000  # of one label, which the bootstrap holds in memory


class Auc:
    """One-vs-rest, plain mean over the labels, of the probabilities where each answer states its label."""

    name = "auc"
    figures = ("auc",)
    needs: Literal["labels"] = "labels"

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        import numpy as np
        from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

        labels = judging.rule.labels if judging.rule is not None else ()
        labelled = [i for i, case in enumerate(cases) if case.asked and case.true_label is not None]
        scored = [i for i in labelled if _scores(cases[i]) is not None]
        if not scored:
            return (_figure(0, None, None, judging.scores_reason),)
        values, parts = [], []
        for label in labels:
            own = np.array([cases[i].true_label == label for i in scored])
            if own.all() or not own.any():
                continue
            scores = np.array([(_scores(cases[i]) or {}).get(label, 0.0) for i in scored])
            values.append(float(roc_auc_score(own, scores)))
            index = np.array(scored)
            parts.append((index[own], index[~own], scores[own], scores[~own]))
        if not values:
            return (
                _figure(len(scored), None, None, "the answers with probabilities have one true label only"),
            )
        unseen = max((cases[i].answer.unseen_mass for i in scored if cases[i].answer), default=0.0)  # type: ignore[union-attr]
        note = "" if len(scored) == len(labelled) else f"over {len(scored)} of {len(labelled)} answers"
        if unseen > 0:
            note += (
                f"{'; ' if note else ''}labels not reported count as 0, of at most {unseen:.2g} probability"
            )
        return (_figure(len(scored), float(np.mean(values)), _statistic(parts), note),)


def _scores(case: Case) -> dict[str, float] | None:
    scores = case.answer.label_scores if case.answer is not None else None
    return dict(scores) if scores is not None else None


def _statistic(
    parts: Sequence[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]],
) -> Statistic:
    """Mean AUC under weights: the weighted share of (own, other) pairs in the right order, ties half."""
    import numpy as np

    orders = [
        (own, other, (np.sign(high[:, None] - low[None, :]) + 1) / 2)
        if len(own) * len(other) <= _MAX_PAIRS
        else None
        for own, other, high, low in parts
    ]

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        columns = []
        for order in orders:
            if order is None:
                return np.full(len(weights), np.nan)
            own, other, right = order
            w_own, w_other = weights[:, own], weights[:, other]  # [draws, own], [draws, other]
            pairs = w_own.sum(axis=1) * w_other.sum(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                columns.append(((w_own @ right) * w_other).sum(axis=1) / pairs)
        mean: NDArray[np.float64] = np.mean(columns, axis=0)
        return mean

    return statistic


def _figure(num_cases: int, value: float | None, statistic: Statistic | None, note: str) -> Measurement:
    return Measurement("auc", "AUC (one-vs-rest)", "score", True, num_cases, statistic, note, value=value)
