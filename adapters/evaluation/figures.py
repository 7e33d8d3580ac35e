"""Figures of base and adapter with their intervals, and the difference on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.evaluation.case import Case
from adapters.evaluation.interval import bootstrap, paired_difference, value_of, wilson
from adapters.evaluation.metrics.metric import Judging, Measurement, Metric
from adapters.evaluation.plan import EvaluationPlan
from adapters.evaluation.report import Figure, Score, SystemFacts, Who


@dataclass(frozen=True, slots=True)
class Asked:
    """One system's answers, and why its likelihoods are not there."""

    cases: tuple[Case, ...]
    facts: SystemFacts
    likelihood_reason: str


def figures_of(
    metrics: Sequence[Metric],
    asked: Mapping[Who, Asked],
    judging: Judging,
    plan: EvaluationPlan,
    num_cases: int,
) -> list[Figure]:
    measured: dict[Who, dict[str, Measurement]] = {}
    for who, each in asked.items():
        own = Judging(
            judging.rule,
            judging.false_alarm,
            likelihood_reason=each.likelihood_reason or "no token of the examples is learned",
            scores_reason="no answer has a label whose probability can be had",
        )
        found = [one for metric in metrics for one in metric.measure(each.cases, own)]
        measured[who] = {one.name: one for one in found}
    figures = []
    for name, one in next(iter(measured.values())).items():
        scores = {who: _score(by_name[name], plan, num_cases) for who, by_name in measured.items()}
        figures.append(
            Figure(
                name,
                one.title,
                one.unit,
                one.higher_is_better,
                scores.get("base"),
                scores.get("adapter"),
                _difference(measured, scores, name, plan, num_cases),
            )
        )
    return figures


def _score(one: Measurement, plan: EvaluationPlan, num_cases: int) -> Score:
    if one.statistic is None:
        return Score(None, None, None, one.num_cases, one.note)
    value = one.value if one.value is not None else value_of(one.statistic, num_cases)
    if one.hits is not None:
        interval = wilson(one.hits, one.num_cases)
    else:
        interval = bootstrap(one.statistic, num_cases, draws=plan.bootstrap_samples, seed=plan.seed)
    low, high = interval if interval is not None and value is not None else (None, None)
    return Score(value, low, high, one.num_cases, one.note)


def _difference(
    measured: dict[Who, dict[str, Measurement]],
    scores: dict[Who, Score],
    name: str,
    plan: EvaluationPlan,
    num_cases: int,
) -> Score | None:
    if len(measured) < 2:
        return None
    base, adapter = measured["base"][name], measured["adapter"][name]
    left, right = scores["base"].value, scores["adapter"].value
    if base.statistic is None or adapter.statistic is None or left is None or right is None:
        return None
    statistic = paired_difference(base.statistic, adapter.statistic)
    interval = bootstrap(statistic, num_cases, draws=plan.bootstrap_samples, seed=plan.seed)
    low, high = interval if interval is not None else (None, None)
    return Score(right - left, low, high, min(base.num_cases, adapter.num_cases))
