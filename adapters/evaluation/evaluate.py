"""Ask base and adapter the same examples, judge both, and say how sure the difference is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from adapters.data.example import Example
from adapters.errors import EvaluationError
from adapters.evaluation.answer import Unavailable
from adapters.evaluation.answerers.answerer import Answerer, Progress
from adapters.evaluation.case import Case, true_label_of
from adapters.evaluation.figures import Asked, figures_of
from adapters.evaluation.judging import judging_of, metrics_of
from adapters.evaluation.metrics.metric import Judging, Metric
from adapters.evaluation.plan import EvaluationPlan
from adapters.evaluation.question import Question, question_of
from adapters.evaluation.report import SCHEMA_VERSION, EvaluationReport, SystemFacts, Who
from adapters.evaluation.tables import confusion_of, lengths_of, mistakes_of

# Told what is being done, and gives back whom to tell how far it is.
Stage = Callable[[str], Progress]


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
    # The labels are those of all the data, so that a draw does not change what counts as one.
    judging, notes = judging_of(examples, [question_of(example) for example in examples], plan)
    chosen = _draw(examples, plan)
    questions = [question_of(example) for example in chosen]
    metrics = metrics_of(plan, judging, any(question is not None for question in questions))
    if len(chosen) < len(examples):
        notes.append(f"{len(chosen)} of {len(examples)} examples, drawn with seed {plan.seed}")
    silent = sum(question is None for question in questions)
    if silent:
        notes.append(f"{silent} examples ask nothing (plain text) and count for perplexity alone")
    asked: dict[Who, Asked] = {}
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
        figures=tuple(figures_of(metrics, asked, judging, plan, len(chosen))),
        confusions=tuple(each for each in confusions if each is not None),
        lengths=lengths_of(by_base, by_adapter),
        mistakes=mistakes_of(by_base, by_adapter, judging, worst=plan.worst_examples),
        notes=tuple(notes),
    )


def _systems(base: Answerer | None, adapter: Answerer | None) -> list[tuple[Who, Answerer]]:
    pairs: list[tuple[Who, Answerer | None]] = [("base", base), ("adapter", adapter)]
    return [(who, answerer) for who, answerer in pairs if answerer is not None]


def _draw(examples: Sequence[Example], plan: EvaluationPlan) -> list[Example]:
    """At most `max_examples` of them, in the data's order."""
    if plan.max_examples is None or plan.max_examples >= len(examples):
        return list(examples)
    places = random.Random(plan.seed).sample(range(len(examples)), plan.max_examples)  # noqa: S311 - no secret
    return [examples[place] for place in sorted(places)]


def _ask(
    who: Who,
    answerer: Answerer,
    examples: Sequence[Example],
    questions: Sequence[Question | None],
    judging: Judging,
    metrics: Sequence[Metric],
    stage: Stage,
) -> Asked:
    """Answers and likelihoods of one system, as far as the metrics want them."""
    if all(metric.needs == "likelihoods" for metric in metrics):
        questions = [None] * len(questions)  # nothing looks at answers, which take most of the time
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
    return Asked(tuple(cases), facts, reason)


def _suspicions(base: Sequence[Case] | None, adapter: Sequence[Case] | None) -> list[str]:
    """What looks like a mistake in the set-up rather than a property of the model."""
    if base is None or adapter is None:
        return []
    pairs = [(left, right) for left, right in zip(base, adapter, strict=True) if left.asked and right.asked]
    if pairs and all(left.text == right.text for left, right in pairs):
        return ["the adapter's answers are the base's, every one of them: does it change anything?"]
    return []
