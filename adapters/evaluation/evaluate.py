"""Ask base and adapter the same examples, judge both, and say how sure the difference is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.data.example import Example
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Unavailable
from adapters.evaluation.answerers.answerer import Answerer, Progress
from adapters.evaluation.case import Case, true_label_of
from adapters.evaluation.interval import bootstrap, paired_difference, value_of, wilson
from adapters.evaluation.labels import LabelRule, false_alarm_rule, label_rule
from adapters.evaluation.metrics.metric import Judging, Measurement, Metric
from adapters.evaluation.metrics.registry import METRICS
from adapters.evaluation.question import Question, question_of
from adapters.evaluation.report import SCHEMA_VERSION, EvaluationReport, Figure, Score, SystemFacts, Who
from adapters.evaluation.tables import confusion_of, lengths_of, mistakes_of

# Told what is being done, and gives back whom to tell how far it is.
Stage = Callable[[str], Progress]


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is asked and how it is judged; see EvaluationSettings for each."""

    label_pattern: str | None = None
    labels: tuple[str, ...] = ()
    false_alarm: str | None = None
    metrics: tuple[str, ...] = ()
    max_examples: int | None = None
    seed: int = 0
    bootstrap_samples: int = 1000
    worst_examples: int = 5


def evaluate(
    examples: Sequence[Example],
    *,
    base: Answerer | None,
    adapter: Answerer | None,
    plan: EvaluationPlan,
    facts: Sequence[tuple[str, str]] = (),
    stage: Stage,
) -> EvaluationReport:
    """The whole evaluation. Raises EvaluationError, also for data or metrics that do not go together."""
    if not examples:
        raise EvaluationError("there are no examples to evaluate on; name a file that has some")
    if base is None and adapter is None:
        raise EvaluationError("neither a base nor an adapter is there to be asked")
    chosen = _draw(examples, plan)
    questions = [question_of(example) for example in chosen]
    judging, notes = _judging(chosen, questions, plan)
    metrics = _metrics(plan, judging, any(question is not None for question in questions))
    if len(chosen) < len(examples):
        notes.append(f"{len(chosen)} of {len(examples)} examples, drawn with seed {plan.seed}")
    silent = sum(question is None for question in questions)
    if silent:
        notes.append(f"{silent} examples ask nothing (plain text) and count for perplexity alone")
    asked: dict[Who, _Asked] = {}
    for who, answerer in _systems(base, adapter):
        asked[who] = _ask(who, answerer, chosen, questions, judging, metrics, stage)
    by_base = asked["base"].cases if "base" in asked else None
    by_adapter = asked["adapter"].cases if "adapter" in asked else None
    notes += _suspicions(by_base, by_adapter)
    confusions = [confusion_of(each.cases, judging, who) for who, each in asked.items()]
    return EvaluationReport(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        subject="adapter" if adapter is not None else "base",
        num_examples=len(chosen),
        facts=tuple(facts),
        systems=tuple(each.facts for each in asked.values()),
        figures=tuple(_figures(metrics, asked, judging, plan, len(chosen))),
        confusions=tuple(each for each in confusions if each is not None),
        lengths=lengths_of(by_base, by_adapter),
        mistakes=mistakes_of(by_base, by_adapter, judging, worst=plan.worst_examples),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """One system's answers, and why something of it is not there."""

    cases: tuple[Case, ...]
    facts: SystemFacts
    likelihood_reason: str


def _systems(base: Answerer | None, adapter: Answerer | None) -> list[tuple[Who, Answerer]]:
    pairs: list[tuple[Who, Answerer | None]] = [("base", base), ("adapter", adapter)]
    return [(who, answerer) for who, answerer in pairs if answerer is not None]


def _draw(examples: Sequence[Example], plan: EvaluationPlan) -> list[Example]:
    """At most `max_examples` of them, in the data's order."""
    if plan.max_examples is None or plan.max_examples >= len(examples):
        return list(examples)
    places = random.Random(plan.seed).sample(range(len(examples)), plan.max_examples)  # noqa: S311 - no secret
    return [examples[place] for place in sorted(places)]


def _judging(
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
        if pattern or plan.labels or plan.false_alarm or plan.metrics:
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


def _metrics(plan: EvaluationPlan, judging: Judging, asks: bool) -> list[Metric]:
    """The metrics that were named, or all that the data allow. Raises EvaluationError for one that they do not."""
    lacking: dict[str, str] = {}
    if not asks:
        lacking["answers"] = "examples that ask something; these are plain text"
    if judging.rule is None or not asks:
        lacking["labels"] = "labels; give the data a label column, or find them with --label-pattern"
    if judging.rule is None or not judging.rule.ordinal or not asks:
        lacking["ordinal labels"] = "labels in an order; give it with --labels, lowest first"
    if judging.false_alarm is None or not asks:
        lacking["false alarm"] = "--false-alarm LOW:HIGH"
    if not plan.metrics:
        return [metric for metric in METRICS.values() if metric.needs not in lacking]
    unknown = [name for name in plan.metrics if name not in METRICS]
    if unknown:
        raise EvaluationError(f"there is no metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    chosen = [METRICS[name] for name in dict.fromkeys(plan.metrics)]
    for metric in chosen:
        if metric.needs in lacking:
            raise EvaluationError(f"the metric {metric.name!r} needs {lacking[metric.needs]}")
    return chosen


def _ask(
    who: Who,
    answerer: Answerer,
    examples: Sequence[Example],
    questions: Sequence[Question | None],
    judging: Judging,
    metrics: Sequence[Metric],
    stage: Stage,
) -> _Asked:
    """Answers and likelihoods of one system, as far as the metrics want them."""
    wanted = [question for question in questions if question is not None]
    started = time.perf_counter()
    given = iter(
        answerer.answer(wanted, rule=judging.rule, progress=stage(f"{who} answers")) if wanted else []
    )
    seconds = time.perf_counter() - started
    answers = [next(given) if question is not None else None for question in questions]
    likelihoods, reason = None, ""
    if any(metric.needs == "likelihoods" for metric in metrics):
        found = answerer.likelihoods(examples, progress=stage(f"{who} reads the references"))
        if isinstance(found, Unavailable):
            reason = found.reason
        else:
            likelihoods = found
    cases = []
    for place, (example, question, answer) in enumerate(zip(examples, questions, answers, strict=True)):
        label = judging.rule.find(answer.text) if judging.rule is not None and answer is not None else None
        true = true_label_of(example, question, judging.rule.pattern if judging.rule is not None else None)
        cases.append(
            Case(
                example=example,
                question=question,
                answer=answer,
                true_label=true if judging.rule is not None else None,
                predicted=label.label if label is not None else None,
                likelihood=likelihoods[place] if likelihoods is not None else None,
            )
        )
    num_tokens = sum(answer.num_tokens for answer in answers if answer is not None)
    facts = SystemFacts(who, answerer.description, len(wanted), num_tokens, seconds)
    return _Asked(tuple(cases), facts, reason)


def _figures(
    metrics: Sequence[Metric],
    asked: dict[Who, _Asked],
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


def _suspicions(base: Sequence[Case] | None, adapter: Sequence[Case] | None) -> list[str]:
    """What looks like a mistake in the set-up rather than a property of the model."""
    if base is None or adapter is None:
        return []
    pairs = [(left, right) for left, right in zip(base, adapter, strict=True) if left.asked and right.asked]
    if pairs and all(left.text == right.text for left, right in pairs):
        return ["the adapter's answers are the base's, every one of them: does it change anything?"]
    return []
