"""Both sides in turns, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.agreement.tool import Tool
from benchmarks.agreement.workload import Reading, Workload
from benchmarks.load.bench import prepare
from benchmarks.load.settings import load_bench_settings
from benchmarks.statistics import Spread, paired_ratios, spread
from benchmarks.turns import rotated

ALLOWED = 0.10  # share by which medians may differ
METRICS = ("ttft_seconds", "tpot_seconds")
_WARMUP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Pair:
    """One round."""

    ours: Reading
    theirs: Reading


@dataclass(frozen=True, slots=True)
class Verdict:
    """One metric over all rounds; `ratio` is of theirs to ours in the same round."""

    metric: str
    ours: Spread
    theirs: Spread
    ratio: Spread

    @property
    def agrees(self) -> bool:
        """Whether the median of the ratios is within what is allowed."""
        return abs(self.ratio.median - 1.0) <= ALLOWED

    def to_dict(self) -> dict[str, Any]:
        """For the result file."""
        return {**asdict(self), "agrees": self.agrees}


def measure(
    tool: Tool,
    programs: Path,
    workload: Workload,
    *,
    rounds: int,
    folder: Path,
    say: Callable[[str], None],
) -> list[Pair]:
    """The same load by both, the other one first in each round. Raises BenchmarkError."""
    pairs = []
    for number in range(rounds):
        # Other texts in each round: no prefix cache knows them.
        load = replace(workload, seed=workload.seed + number)
        sides: dict[str, Callable[[], Reading]] = {
            tool.requirement: partial(tool.run, programs, load, folder / f"{tool.name}-{number + 1}"),
            "hotswap bench run": partial(measure_ours, load),
        }
        readings = {}
        for name in rotated(list(sides), number):
            say(f"round {number + 1} of {rounds}: {name}")
            readings[name] = sides[name]()
        pairs.append(Pair(ours=readings["hotswap bench run"], theirs=readings[tool.requirement]))
    return pairs


def measure_ours(workload: Workload) -> Reading:
    """What `hotswap bench run --api completions` measures. Raises BenchmarkError."""
    settings = load_bench_settings(
        url=workload.url,
        api="completions",
        arrivals=workload.arrivals.text,
        seconds=workload.seconds,
        warmup_seconds=_WARMUP_SECONDS,
        prompt_tokens=str(workload.prompt_tokens),
        answer_tokens=str(workload.answer_tokens),
        adapters="none",
        seed=workload.seed,
    )
    figures = prepare(settings).run("ours", workload.arrivals).figures
    return Reading(
        requests=figures["counts"]["ok"],
        failed=figures["counts"]["failed"] + figures["counts"]["rejected"],
        ttft_seconds=figures["ttft_sent_seconds"]["p50"],
        tpot_seconds=figures["tpot_seconds"]["p50"],
        prompt_tokens=figures["prompt_tokens"]["p50"],
        as_called={"TTFT from when it was due, p50": figures["ttft_seconds"]["p50"]},
    )


def verdicts(pairs: Sequence[Pair]) -> list[Verdict]:
    """One for each of METRICS."""
    found = []
    for metric in METRICS:
        ours = {number: float(getattr(pair.ours, metric)) for number, pair in enumerate(pairs)}
        theirs = {number: float(getattr(pair.theirs, metric)) for number, pair in enumerate(pairs)}
        ratios = paired_ratios(theirs, ours)
        found.append(
            Verdict(metric, spread(list(ours.values())), spread(list(theirs.values())), spread(ratios))
        )
    return found
