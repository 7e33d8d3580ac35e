"""What is measured, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.closed_loop.errors import PlanError
from benchmarks.overload.figures import Limits

CAPACITY_WORKERS = (16, 32, 64, 80)
FACTORS = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """First the capacity, by closed loops; then open loops at multiples of it."""

    workers: tuple[int, ...]
    factors: tuple[float, ...]
    capacity_seconds: float  # of each closed loop, its first quarter not counted
    settle_seconds: float  # of each open loop, not counted: the queue fills
    measure_seconds: float
    max_tokens: int
    prompt_words: int
    limits: Limits
    request_timeout_seconds: float = 120.0
    ready_seconds: float = 900.0
    seed: int = 1

    def check(self) -> None:
        """Raise PlanError with everything that cannot be measured."""
        problems = []
        if not self.workers or min(self.workers, default=0) < 1:
            problems.append("--workers needs whole numbers of 1 or more")
        if not self.factors or min(self.factors, default=0.0) <= 0:
            problems.append("--factors needs numbers above 0")
        if self.max_tokens < 1 or self.prompt_words < 2:
            problems.append("answers have 1 token and prompts 2 words at least")
        if min(self.capacity_seconds, self.measure_seconds) <= 0 or self.settle_seconds < 0:
            problems.append("the stages last more than 0 s")
        if min(self.limits.ttft_seconds, self.limits.e2e_seconds) <= 0:
            problems.append("the limits of a good answer are above 0 s")
        if problems:
            raise PlanError("; ".join(problems))
