"""What a metric is: from cases to a statistic that can be evaluated on any draw of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from adapters.evaluation.case import Case
from adapters.evaluation.interval import Statistic
from adapters.evaluation.labels import FalseAlarmRule, LabelRule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# share: 0 to 1, shown in percent; score: 0 to 1; points: 0 to 100; levels: steps between ordinal labels;
# perplexity: 1 and more.
Unit = Literal["share", "score", "points", "levels", "perplexity"]


@dataclass(frozen=True, slots=True)
class Judging:
    """What metrics need to know besides the cases. `rule` is None for data without labels."""

    rule: LabelRule | None = None
    false_alarm: FalseAlarmRule | None = None
    likelihood_reason: str = "likelihoods were not asked for"
    scores_reason: str = "label probabilities were not asked for"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure. `statistic` takes weights over all cases and is None where the figure cannot be had.

    `note` says why it cannot be had, or what a reader must know of it. `num_cases` are those it stands on.
    `hits` is given for shares of cases: their interval is Wilson's.
    """

    name: str
    title: str
    unit: Unit
    higher_is_better: bool
    num_cases: int
    statistic: Statistic | None
    note: str = ""
    hits: int | None = None
    value: float | None = None  # where a library computes it; otherwise the statistic with equal weights


class Metric(Protocol):
    """One way of judging answers. `needs` names what the data must have."""

    @property
    def name(self) -> str:
        """How the user names it."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of all that `measure` may give."""

    @property
    def needs(self) -> Literal["answers", "labels", "ordinal labels", "false alarm", "likelihoods"]:
        """What it cannot do without."""

    def measure(self, cases: Sequence[Case], judging: Judging) -> tuple[Measurement, ...]:
        """One or more figures over the same cases."""


def weighted_mean(values: NDArray[np.float64], counts: NDArray[np.float64] | None = None) -> Statistic:
    """Mean of `values` [cases] over the cases (or over `counts` of them); nan where nothing was drawn."""

    def statistic(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        import numpy as np

        total = weights @ counts if counts is not None else weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            quotient: NDArray[np.float64] = (weights @ values) / total
        return quotient

    return statistic


def share(
    name: str,
    title: str,
    hits: Sequence[bool],
    among: Sequence[bool] | None = None,
    *,
    higher_is_better: bool = True,
    note: str = "",
) -> Measurement:
    """The share of cases that hit, among those that count."""
    import numpy as np

    counted = np.ones(len(hits)) if among is None else np.array(among, dtype=np.float64)
    hit = np.array(hits, dtype=np.float64) * counted
    total = int(counted.sum())
    return Measurement(
        name,
        title,
        "share",
        higher_is_better,
        total,
        weighted_mean(hit, counted) if total else None,
        note if total else "there is no such example",
        hits=int(hit.sum()),
    )
