"""How much is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.closed_loop.plan import Plan as LoadPlan
from benchmarks.errors import PlanError

PARTS = ("make", "quality", "memory", "task", "equality", "speed", "report")
DTYPES = ("float32", "bfloat16")
ISAS = ("avx2",)


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
    def load(self) -> LoadPlan:
        """The load of the speed part."""
        return LoadPlan(
            concurrency=self.concurrency,
            rounds=self.rounds,
            requests=self.requests,
            max_tokens=self.max_tokens,
            settle_seconds=self.settle_seconds,
            ready_seconds=self.ready_seconds,
        )

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
        if problems:
            raise PlanError("no report can be made like this: " + "; ".join(problems))
        self.load.check()


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
