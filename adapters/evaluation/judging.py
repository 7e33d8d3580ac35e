"""From data and plan to labels, rules and metrics; refuses what does not go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adapters.data.example import Example
from adapters.errors import EvaluationError
from adapters.evaluation.case import true_label_of
from adapters.evaluation.labels import LabelRule, false_alarm_rule, label_rule
from adapters.evaluation.metrics.metric import Judging, Metric
from adapters.evaluation.metrics.registry import METRICS
from adapters.evaluation.plan import EvaluationPlan
from adapters.evaluation.question import Question, question_of

_LABEL_NEEDS = frozenset({"labels", "ordinal labels", "false alarm"})


def judging_of(
    examples: Sequence[Example], questions: Sequence[Question | None], plan: EvaluationPlan
) -> tuple[Judging, list[str]]:
    """Labels and rules from data and plan, and what a reader must know of them."""
    pattern, notes = plan.label_pattern, []
    true = [
        true_label_of(example, question, pattern)
        for example, question in zip(examples, questions, strict=True)
        if question is not None
    ]
    known = [label for label in true if label is not None]
    if not known:
        if plan.false_alarm or plan.labels:
            raise EvaluationError(
                "--labels and --false-alarm need labels, and the data have none: "
                + (
                    f"no answer in them matches --label-pattern {pattern!r}"
                    if pattern
                    else "add a label column, or find labels in the answers with --label-pattern"
                )
            )
        return Judging(), [f"no answer in the data matches --label-pattern {pattern!r}"] if pattern else []
    rule = label_rule(known, pattern=pattern, labels=plan.labels)
    differing, labelled = _differing(examples, questions, rule)
    if differing and len(differing) == labelled:
        lacking = _unfound_label(*differing[0], rule)
        if pattern or plan.labels or plan.false_alarm or _wants_labels(plan):
            raise EvaluationError(lacking)
        return Judging(), [f"labels are not judged: {lacking}"]
    if differing:
        notes.append(
            f"{len(differing)} of {labelled} answers of the data do not say their own label; the first: "
            + _unfound_label(*differing[0], rule)
        )
    if len(known) < len(true):
        notes.append(f"{len(true) - len(known)} examples have no label and count for text metrics alone")
    alarm = false_alarm_rule(plan.false_alarm, rule) if plan.false_alarm is not None else None
    return Judging(rule=rule, false_alarm=alarm), notes


def _wants_labels(plan: EvaluationPlan) -> bool:
    return any(
        metric.needs in _LABEL_NEEDS
        for metric in METRICS.values()
        if metric.name in plan.metrics or not set(plan.needed_figures).isdisjoint(metric.figures)
    )


def _differing(
    examples: Sequence[Example], questions: Sequence[Question | None], rule: LabelRule
) -> tuple[list[tuple[Example, str | None]], int]:
    """Examples in whose own answer the rule finds another label than theirs, with it; and how many have both.

    Without this a typing error in the pattern looks like a model that never answers.
    """
    differing: list[tuple[Example, str | None]] = []
    labelled = 0
    for example, question in zip(examples, questions, strict=True):
        if question is None or example.label is None:
            continue
        labelled += 1
        found = rule.find(question.reference)
        if found is None or found.label != example.label:
            differing.append((example, found.label if found is not None else None))
    return differing, labelled


def _unfound_label(example: Example, found: str | None, rule: LabelRule) -> str:
    how = (
        f"--label-pattern {rule.pattern!r} finds"
        if rule.pattern
        else "the whole answer is taken, which gives"
    )
    return (
        f"{example.origin}: the label is {example.label!r}, but in the data's own answer "
        f"{example.answer[:80]!r} {how} {found or 'none'}; give a --label-pattern that finds it, such as "
        r"'Risk: (\d)'"
    )


def check_plan(examples: Sequence[Example], plan: EvaluationPlan) -> Judging:
    """How it will be judged; refuses before any model is loaded what could not be. Raises EvaluationError."""
    questions = [question_of(example) for example in examples]
    judging, _ = judging_of(examples, questions, plan)
    metrics_of(plan, judging, any(question is not None for question in questions))
    return judging


def metrics_of(plan: EvaluationPlan, judging: Judging, asks: bool) -> list[Metric]:
    """The metrics that were named, or all that the data allow.

    Raises EvaluationError for one that they do not, and for a needed figure that none of them gives.
    """
    lacking: dict[str, str] = {}
    if not asks:
        lacking["answers"] = "examples that ask something; these are plain text"
    if judging.rule is None or not asks:
        lacking["labels"] = "labels; give the data a label column, or find them with --label-pattern"
    if judging.rule is None or not judging.rule.ordinal or not asks:
        lacking["ordinal labels"] = "labels in an order; give it with --labels, lowest first"
    if judging.false_alarm is None or not asks:
        lacking["false alarm"] = "--false-alarm LOW:HIGH"
    unknown = [name for name in plan.metrics if name not in METRICS]
    if unknown:
        raise EvaluationError(f"there is no metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    named = [METRICS[name] for name in dict.fromkeys(plan.metrics)]
    for metric in named:
        if metric.needs in lacking:
            raise EvaluationError(f"the metric {metric.name!r} needs {lacking[metric.needs]}")
    chosen = named or [metric for metric in METRICS.values() if metric.needs not in lacking]
    _check_needed(plan, chosen, lacking)
    return chosen


def _check_needed(plan: EvaluationPlan, chosen: Sequence[Metric], lacking: Mapping[str, str]) -> None:
    measured = [name for metric in chosen for name in metric.figures]
    for name in plan.needed_figures:
        if name in measured:
            continue
        giver = next((metric for metric in METRICS.values() if name in metric.figures), None)
        if giver is not None and giver.needs in lacking:
            raise EvaluationError(f"--fail-under names {name!r}, which needs {lacking[giver.needs]}")
        raise EvaluationError(
            f"--fail-under names {name!r}, which is not measured; there are {', '.join(measured)}"
        )
