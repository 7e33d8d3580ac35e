"""What an evaluation asks and how it judges, as flat values; see EvaluationSettings for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is asked and how it is judged; see EvaluationSettings for each."""

    label_pattern: str | None = None
    labels: tuple[str, ...] = ()
    false_alarm: str | None = None
    metrics: tuple[str, ...] = ()
    needed_figures: tuple[str, ...] = ()  # those that --fail-under names
    max_examples: int | None = None
    seed: int = 0
    bootstrap_samples: int = 1000
    worst_examples: int = 5
