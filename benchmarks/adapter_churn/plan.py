"""How many adapters, how long, and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.errors import PlanError


@dataclass(frozen=True, slots=True)
class Plan:
    """Registered once; then load, churn and measurements for `minutes`."""

    registered: int
    active: int  # of them asked by clients
    minutes: float
    concurrency: int
    churn_seconds: float  # from one verb to the next
    list_seconds: float  # from one listing to the next
    sample_seconds: float  # from one look at the processes to the next
    max_tokens: int
    prompt_words: int
    rank: int
    spares: int = 32  # more adapters, loaded under names of their own and unloaded again
    ready_seconds: float = 900.0
    request_timeout_seconds: float = 300.0
    seed: int = 1

    @property
    def names(self) -> list[str]:
        """Names of the registered adapters."""
        return [f"adapter-{number:04d}" for number in range(self.registered)]

    @property
    def asked(self) -> list[str]:
        """Those that clients ask, spread over all."""
        step = self.registered / self.active
        return [self.names[int(number * step)] for number in range(self.active)]

    def check(self) -> None:
        """Raise PlanError with everything that cannot be measured."""
        problems = []
        if not 1 <= self.active <= self.registered:
            problems.append(f"--active {self.active} is not between 1 and --registered {self.registered}")
        if not 1 <= self.concurrency <= self.active:
            problems.append(f"--concurrency {self.concurrency} is not between 1 and --active {self.active}")
        if min(self.minutes, self.churn_seconds, self.list_seconds, self.sample_seconds) <= 0:
            problems.append("--minutes and the intervals are above 0")
        if self.max_tokens < 2 or self.rank < 1:
            problems.append("--max-tokens is 2 or more, --rank 1 or more")
        if problems:
            raise PlanError("; ".join(problems))
