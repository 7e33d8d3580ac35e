"""Load beyond what a server can do: its capacity by closed loops, then rates that are multiples of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.load.bench import Bench
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.figures.disturbance import MOST_SHARE
from benchmarks.load.figures.figures import reached_req_s
from benchmarks.load.rates import Progress, Say, at_rate
from benchmarks.load.run import RunResult
from benchmarks.load.workload.arrivals import Arrivals, parse_arrivals

GOODPUT_TARGET = 0.9  # of the peak, at twice the capacity
TARGET_FACTOR = 2.0
REJECTION_TARGET_SECONDS = 0.1
_MOST_DISTURBED = 0.2  # of all runs; beyond it there is no verdict


@dataclass(frozen=True, slots=True)
class Step:
    """One multiple of the capacity. Seconds are None where nothing was rejected."""

    run: str
    factor: float
    goodput_share: float  # of the peak
    rejected: int
    rejection_p50_seconds: float | None
    rejection_p99_seconds: float | None


def parse_factors(text: str) -> list[float]:
    """`0.5,1,2`: ascending multiples of the capacity. Raises LoadOptionError."""
    try:
        factors = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise LoadOptionError(f"--times-capacity {text!r}: give numbers with commas, e.g. 0.5,1,2") from None
    if not factors or any(not 0 < factor <= 100 for factor in factors):
        raise LoadOptionError(
            f"--times-capacity {text!r}: give multiples above 0 and up to 100, e.g. 0.5,1,2"
        )
    return sorted(set(factors))


def closed_loops(text: str | None, arrivals: Arrivals) -> list[Arrivals]:
    """`16,32`: loops of so many workers; None: that of `--arrivals closed:N`, else 32. Raises LoadOptionError."""
    if text is None:
        return [arrivals if arrivals.closed else parse_arrivals("closed:32")]
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not numbers or not all(number.isdecimal() for number in numbers):
        raise LoadOptionError(f"--capacity-workers {text!r}: give whole numbers with commas, e.g. 16,32")
    return [parse_arrivals(f"closed:{number}") for number in numbers]


def beyond_capacity(
    bench: Bench, loops: Sequence[Arrivals], factors: Sequence[float], *, progress: Progress, say: Say
) -> tuple[list[RunResult], dict[str, Any]]:
    """A run of each closed loop, the best of which (answers per second) is the capacity, and one of each factor.

    Also what the result file keeps: `capacity_req_s`, the `peak` of goodput, `steps`. Raises BenchmarkError.
    """
    runs: list[RunResult] = []
    for place, loop in enumerate(loops):
        say(f"{loop.text}: what the server reaches when nobody waits")
        # Other texts than any rate's, so that no prefix cache helps.
        other = replace(bench, prompts=replace(bench.prompts, salt=f"{bench.prompts.salt}/capacity"))
        runs.append(other.run(loop.text, loop, seed=bench.settings.seed + place, progress=progress))
    capacity = max(reached_req_s(run.figures) for run in runs)
    if not capacity:
        raise LoadOptionError("no answer ended within the window, so there is no capacity: raise --seconds")
    for place, factor in enumerate(factors):
        arrivals = at_rate(bench.load.arrivals, round(factor * capacity, 3))
        say(f"{factor:g} times the capacity: {arrivals.text}")
        runs.append(bench.run(_name(factor), arrivals, seed=bench.settings.seed + place, progress=progress))
    return runs, _conclusion(runs, capacity, factors)


def _name(factor: float) -> str:
    return f"{factor:g}x"


def _conclusion(runs: Sequence[RunResult], capacity: float, factors: Sequence[float]) -> dict[str, Any]:
    peak = max(runs, key=lambda run: float(run.figures["goodput_req_s"]))
    by_name = {run.name: run for run in runs}
    steps = []
    for factor in factors:
        run = by_name[_name(factor)]
        rejection = run.figures["rejection_seconds"] or {}
        share = run.figures["goodput_req_s"] / max(1e-9, peak.figures["goodput_req_s"])
        steps.append(
            Step(
                run.name,
                factor,
                round(share, 4),
                run.figures["counts"]["rejected"],
                rejection.get("p50"),
                rejection.get("p99"),
            )
        )
    disturbed = sum((run.client.get("foreign_cpu_share") or 0.0) > MOST_SHARE for run in runs)
    return {
        "capacity_req_s": capacity,
        "peak": {"run": peak.name, "goodput_req_s": peak.figures["goodput_req_s"]},
        "steps": [asdict(step) for step in steps],
        "disturbed": disturbed > _MOST_DISTURBED * len(runs),
    }
