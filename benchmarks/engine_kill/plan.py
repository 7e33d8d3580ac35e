"""What is done to the engine, under which load."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.errors import PlanError


@dataclass(frozen=True, slots=True)
class Plan:
    """Kills, each under a load of its own, and then one stop."""

    kills: int
    stop_seconds: float  # 0: no stop
    adapters: int
    concurrency: int
    before_seconds: float  # of load, before the engine is struck
    after_seconds: float  # and after, at least
    max_tokens: int
    prompt_words: int
    rank: int
    request_timeout_seconds: float = 300.0
    refused_seconds: float = 1.0  # who is sent away comes back after so long
    back_seconds: float = 300.0  # longest wait for readiness
    ready_seconds: float = 900.0
    seed: int = 1

    @property
    def names(self) -> list[str]:
        """The adapters."""
        return [f"adapter-{number}" for number in range(self.adapters)]

    @property
    def asked(self) -> list[str | None]:
        """All adapters and the base, which are asked in turn."""
        return [*self.names, None]

    def check(self) -> None:
        """Raise PlanError with everything that cannot be measured."""
        problems = [
            f"{name} is {value}; at least {least} is needed"
            for name, value, least in (
                ("--kills", self.kills, 0),
                ("--stop-seconds", self.stop_seconds, 0),
                ("--adapters", self.adapters, 1),
                ("--concurrency", self.concurrency, 1),
                ("--before-seconds", self.before_seconds, 1),
                ("--after-seconds", self.after_seconds, 1),
                ("--max-tokens", self.max_tokens, 2),
            )
            if value < least
        ]
        if not self.kills and not self.stop_seconds:
            problems.append("nothing is done to the engine: give --kills or --stop-seconds")
        if problems:
            raise PlanError("; ".join(problems))
