"""Accuracy on the task's notes, asked of a running gateway as `hotswap evaluate --url` asks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.data.read import read_examples
from adapters.evaluation.answerers.gateway_answerer import GatewayAnswerer
from adapters.evaluation.answerers.gateway_http import GatewayHttp
from adapters.evaluation.case import true_label_of
from adapters.evaluation.interval import bootstrap, wilson
from adapters.evaluation.judging import judging_of
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.plan import EvaluationPlan
from adapters.evaluation.question import Question, question_of
from benchmarks.errors import PlanError
from benchmarks.quantisation.figures import Measured, SubjectName, TaskFigures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONCURRENCY = 32
_REQUEST_SECONDS = 300.0
_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Task:
    """Notes with their true labels, and how a label is read from an answer."""

    questions: tuple[Question, ...]
    labels: tuple[str, ...]
    rule: LabelRule


def read_task(path: Path, *, label_pattern: str, limit: int) -> Task:
    """The first `limit` notes of a file. Raises DataError, EvaluationError, PlanError for data without labels."""
    examples = read_examples(path)
    questions = [question_of(example) for example in examples]
    plan = EvaluationPlan(label_pattern=label_pattern)
    judging, _ = judging_of(examples, questions, plan)
    if judging.rule is None:
        raise PlanError(f"{path.name}: no answer matches --label-pattern {label_pattern!r}")
    kept = [
        (question, label)
        for example, question in zip(examples, questions, strict=True)
        if question is not None and (label := true_label_of(example, question, label_pattern)) is not None
    ][:limit]
    return Task(tuple(question for question, _ in kept), tuple(label for _, label in kept), judging.rule)


def ask_task(
    url: str,
    task: Task,
    *,
    subject: SubjectName,
    served: str,
    adapter: str | None,
    max_tokens: int,
    progress: Callable[[int, int], None],
) -> TaskFigures:
    """Ask every note. Raises EvaluationError when the gateway refuses or is gone."""
    gateway = GatewayHttp(url, concurrency=CONCURRENCY, request_seconds=_REQUEST_SECONDS)
    answerer = GatewayAnswerer(gateway, adapter=adapter, max_new_tokens=max_tokens)
    started = time.monotonic()
    answers = answerer.answer(task.questions, rule=None, progress=progress)
    seconds = time.monotonic() - started
    found = [task.rule.find(answer.text) for answer in answers]
    right = [
        label is not None and label.label == true for label, true in zip(found, task.labels, strict=True)
    ]
    interval = wilson(sum(right), len(right)) or (None, None)
    return TaskFigures(
        subject=subject,
        served=served,
        adapter=adapter,
        accuracy=Measured(value=sum(right) / len(right), low=interval[0], high=interval[1], count=len(right)),
        right="".join("1" if each else "0" for each in right),
        num_tokens=sum(answer.num_tokens for answer in answers),
        seconds=seconds,
    )


def kept_share(ours: TaskFigures, original: TaskFigures) -> Measured | None:
    """Our accuracy over the original's on the same notes, with a paired bootstrap interval; None without a base."""
    if len(ours.right) != len(original.right) or "1" not in original.right:
        return None
    import numpy as np

    left, right = _hits(ours.right), _hits(original.right)

    def share(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        hits = weights @ right  # a draw may hold none of what the original has right
        found = np.full(len(hits), np.nan)
        np.divide(weights @ left, hits, out=found, where=hits > 0)
        return found

    interval = bootstrap(share, len(left), draws=_DRAWS, seed=0)
    low, high = interval if interval is not None else (None, None)
    return Measured(value=float(left.sum() / right.sum()), low=low, high=high, count=len(left))


def _hits(right: str) -> NDArray[np.float64]:
    import numpy as np

    return np.array([float(each) for each in right])
