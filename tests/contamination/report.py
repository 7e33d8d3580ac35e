"""What a run found, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Self

from tests.contamination.judge import Judge


@dataclass(frozen=True)
class Report:
    """Counts of one run. `ok` when there is no fault."""

    ok: bool
    seed: int
    seconds: float
    requests: int
    requests_by_dialect: dict[str, int]
    outcomes: dict[str, int]
    answers_by_version: dict[str, int]
    verbs: dict[str, int]
    words_compared: int
    words_wrong: int
    largest_base_difference_nats: float
    verbs_cut_off: dict[str, int]  # by the end of the engine under them
    restart_seconds: list[float]  # from each kill of the engine until the server was ready again
    memory_mib: list[float]  # of the gateway's process, after each round
    requests_repeated: int  # of the admin API, whose kept connection was closed under them
    faults: dict[str, int]
    examples: list[str]  # of the faults

    @classmethod
    def of(
        cls,
        judge: Judge,
        *,
        verbs: Counter[str],
        verbs_cut_off: Counter[str],
        seconds: float,
        seed: int,
        memory_mib: list[float],
        restart_seconds: list[float],
        requests_repeated: int,
    ) -> Self:
        """From what was heard."""
        return cls(
            ok=not judge.fault_kinds,
            seed=seed,
            seconds=round(seconds, 1),
            requests=judge.dialects.total(),
            requests_by_dialect=dict(sorted(judge.dialects.items())),
            outcomes=dict(sorted(judge.outcomes.items())),
            answers_by_version=dict(sorted(judge.versions.items())),
            verbs=dict(sorted(verbs.items())),
            words_compared=judge.words,
            words_wrong=judge.fault_kinds["wrong_word"],
            largest_base_difference_nats=judge.largest_base_nats,
            verbs_cut_off=dict(sorted(verbs_cut_off.items())),
            restart_seconds=[round(seconds, 2) for seconds in restart_seconds],
            memory_mib=[round(mib, 1) for mib in memory_mib],
            requests_repeated=requests_repeated,
            faults=dict(judge.fault_kinds),
            examples=[str(fault) for fault in judge.faults],
        )

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """For people."""
        lines = [
            f"{self.requests} requests, {sum(self.verbs.values())} verbs in {self.seconds:g} s (seed {self.seed})",
            _counts("requests", self.requests_by_dialect),
            _counts("outcomes", self.outcomes),
            _counts("verbs", self.verbs),
            f"words: {self.words_compared} compared, {self.words_wrong} wrong",
            _counts("answers", self.answers_by_version),
            f"the base next to adapters: at most {self.largest_base_difference_nats:.1e} nats from the base alone",
            f"engine killed {len(self.restart_seconds)} times, ready after: {self.restart_seconds} s",
            _counts("verbs that a kill ended", self.verbs_cut_off),
            f"memory after each round, MiB: {self.memory_mib}",
            f"admin requests whose kept connection was closed under them: {self.requests_repeated}",
            _counts("faults", self.faults) if self.faults else "no fault",
            *self.examples,
        ]
        return "\n".join(lines)


def _counts(title: str, counts: dict[str, int]) -> str:
    return f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items())
