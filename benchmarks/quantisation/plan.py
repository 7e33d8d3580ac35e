"""How much is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.errors import PlanError
from benchmarks.load.workload.arrivals import MAX_WORKERS

PARTS = ("make", "quality", "memory", "task", "equality", "speed", "report")
DTYPES = ("float32", "bfloat16")
ISAS = ("avx2",)
# Below three requests a worker, the span in which every worker has a request under way gets too short.
MIN_REQUESTS_PER_WORKER = 3


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """The size of a report. `dtypes` are those that the quantised forms are served in; the first counts."""

    base: str
    adapter: str
    data: Path
    calibration: tuple[Path, ...]
    label_pattern: str
    schemes: tuple[str, ...]
    dtypes: tuple[str, ...]
    parts: tuple[str, ...]
    label: str
    isa: str | None
    home: Path
    out: Path
    made: dict[str, Path]  # folders that are there already, by the name of the form ("merged/gptq-w4a16")
    concurrency: tuple[int, ...] = (1, 8, 32)
    rounds: int = 3
    requests: int = 8
    prompt_tokens: int = 32
    max_tokens: int = 32
    speed_seconds: float = 600.0
    task_examples: int = 500
    task_tokens: int = 48
    equality_prompts: int = 50
    equality_tokens: int = 16
    quality_rows: int = 16
    row_tokens: int = 256
    kv_cache_gib: float = 0.5
    settle_seconds: float = 1.5
    ready_seconds: float = 600.0
    recover: bool = True
    quick: bool = False

    @property
    def load(self) -> str:
        """What the speed part sends, in words: figures of another load are other figures."""
        return (
            f"{self.rounds} rounds at {self.concurrency}, {self.requests} requests of {self.prompt_tokens} and "
            f"{self.max_tokens} tokens, by hotswap bench"
        )

    def measured_requests(self, concurrency: int) -> int:
        """Of one block of the speed part: every worker has its share, and never fewer than three."""
        return concurrency * max(MIN_REQUESTS_PER_WORKER, math.ceil(self.requests / concurrency))

    def check(self) -> None:
        """Raise PlanError with everything that cannot be measured, before anything starts."""
        from quantize.schemes.registry import SCHEMES

        problems = _unknown("--parts", self.parts, PARTS)
        problems += _unknown("--schemes", self.schemes, tuple(SCHEMES))
        problems += _unknown("--dtypes", self.dtypes, DTYPES)
        if self.isa is not None:
            problems += _unknown("--cpu-isa", (self.isa,), ISAS)
        if not self.data.is_file():
            problems.append(f"there is no file {str(self.data)!r} with notes to ask; name one with --data")
        problems += [
            f"--made {name}: there is no folder {str(folder)!r}"
            for name, folder in self.made.items()
            if not folder.is_dir()
        ]
        problems += self._problems_of_speed()
        if problems:
            raise PlanError("no report can be made like this: " + "; ".join(problems))

    def _problems_of_speed(self) -> list[str]:
        problems = []
        if not self.concurrency:
            problems.append("no concurrency is given; e.g. --concurrency 1,8,32")
        problems += [
            f"concurrency {number} is not between 1 and {MAX_WORKERS}"
            for number in self.concurrency
            if not 1 <= number <= MAX_WORKERS
        ]
        if len(set(self.concurrency)) != len(self.concurrency):
            problems.append(f"concurrency {list(self.concurrency)} names a number twice")
        if self.rounds < 1:
            problems.append(f"{self.rounds} rounds; at least 1 is needed, 5 for a spread worth reading")
        if self.requests < 1:
            problems.append(f"{self.requests} requests; at least 1 is needed")
        if self.max_tokens < 2:
            problems.append(f"{self.max_tokens} tokens per answer; a time per token needs at least 2")
        return problems


def quick(plan: ReportPlan) -> ReportPlan:
    """A few minutes instead of half an hour: figures to try the way, not to quote."""
    return replace(
        plan,
        concurrency=tuple(number for number in plan.concurrency if number <= 8)[:2] or plan.concurrency[:1],
        rounds=1,
        requests=2,
        max_tokens=8,
        speed_seconds=120.0,
        task_examples=24,
        equality_prompts=6,
        equality_tokens=8,
        quality_rows=4,
        row_tokens=128,
        quick=True,
    )


def _unknown(option: str, given: Sequence[str], known: Sequence[str]) -> list[str]:
    wrong = [name for name in given if name not in known]
    if wrong:
        return [f"{option} {', '.join(wrong)}: choose from {', '.join(known)}"]
    if not given:
        return [f"{option} is empty: choose from {', '.join(known)}"]
    return [f"{option} names one twice: {', '.join(given)}"] if len(set(given)) < len(given) else []
