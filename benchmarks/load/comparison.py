"""Two results side by side, and whether the second is worse than it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.load.errors import LoadOptionError, ResultFileError
from benchmarks.load.result_file import Measurement

# name -> path in a run's figures, and whether more is better.
METRICS: dict[str, tuple[tuple[str, ...], bool]] = {
    "goodput": (("goodput_req_s",), True),
    "slo_attainment": (("slo_attainment",), True),
    "req_s": (("req_s",), True),
    "output_tok_s": (("output_tok_s",), True),
    "ttft_p50": (("ttft_seconds", "p50"), False),
    "ttft_p99": (("ttft_seconds", "p99"), False),
    "tpot_p50": (("tpot_seconds", "p50"), False),
    "tpot_p99": (("tpot_seconds", "p99"), False),
    "icl_p99": (("icl_seconds", "p99"), False),
    "e2e_p50": (("e2e_seconds", "p50"), False),
    "e2e_p99": (("e2e_seconds", "p99"), False),
    "overhead_mean": (("overhead_seconds", "mean"), False),
    "overhead_p99": (("overhead_seconds", "p99"), False),
    "failed": (("counts", "failed"), False),
    "idle_cpu": (("idle", "cpu_share"), False),
    "idle_memory": (("idle", "memory_bytes"), False),
    "http_cpu_ms_per_token": (("http_cpu_ms_per_token",), False),  # where servers were started for the run
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of one run in both results; `change` is second / first - 1, None where first is 0 or missing."""

    run: str
    metric: str
    first: float | None
    second: float | None
    change: float | None
    more_is_better: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """How much worse a metric may be: `goodput:-5%` (5 % less), `ttft_p99:+10%` (10 % more)."""

    metric: str
    change: float

    def broken_by(self, difference: Difference) -> bool:
        """Whether the second result is beyond the limit; a metric that one of them lacks is."""
        if difference.metric != self.metric:
            return False
        if difference.first is None or difference.second is None:
            return difference.first is not None
        if difference.change is None:
            return difference.second > 0 and not difference.more_is_better
        if difference.more_is_better:
            return difference.change < -abs(self.change)
        return difference.change > abs(self.change)


def parse_limit(text: str) -> Limit:
    """`METRIC:-5%`. Raises LoadOptionError."""
    metric, _, value = text.partition(":")
    if metric not in METRICS:
        raise LoadOptionError(f"--fail-on {text!r}: {metric!r} is none of {', '.join(METRICS)}")
    try:
        change = float(value.strip().removesuffix("%")) / 100
    except ValueError:
        raise LoadOptionError(f"--fail-on {text!r}: write {metric}:-5% or {metric}:+10%") from None
    more_is_better = METRICS[metric][1]
    if (change > 0) == more_is_better and change:
        worse = "-5%" if more_is_better else "+10%"
        raise LoadOptionError(
            f"--fail-on {text!r}: {metric} gets worse the other way; write {metric}:{worse}"
        )
    return Limit(metric, change)


def compare(first: Measurement, second: Measurement) -> list[Difference]:
    """Every metric of every run that both have, by the run's name.

    Raises ResultFileError when they have no run in common.
    """
    theirs = {run["name"]: run for run in second.runs}
    common = [run for run in first.runs if run["name"] in theirs]
    if not common:
        names = f"{', '.join(r['name'] for r in first.runs)} and {', '.join(theirs)}"
        raise ResultFileError(f"the two results have no run in common ({names})")
    found = []
    for run in common:
        for metric, (path, more_is_better) in METRICS.items():
            one, other = figure_of(run["figures"], path), figure_of(theirs[run["name"]]["figures"], path)
            if one is None and other is None:
                continue
            change = other / one - 1 if one and other is not None else None
            found.append(Difference(run["name"], metric, one, other, change, more_is_better))
    return found


def reasons_against(first: Measurement, second: Measurement) -> list[str]:
    """Why two results should not be compared: another load, another machine, an invalid run."""
    found = []
    for name, one, other in (
        ("load", _without(first.load, "url"), _without(second.load, "url")),
        ("limits (SLO)", first.slo, second.slo),
        ("machine", _machine(first), _machine(second)),
    ):
        if one != other:
            found.append(f"the {name} differs")
    for label, measurement in (("first", first), ("second", second)):
        invalid = [run["name"] for run in measurement.runs if not run["valid"]]
        if invalid:
            found.append(f"runs of the {label} result do not count: {', '.join(invalid)}")
    for label, missing in (("first", missing_runs(first, second)), ("second", missing_runs(second, first))):
        if missing:
            found.append(f"runs of the {label} result alone: {', '.join(missing)}")
    return found


def missing_runs(first: Measurement, second: Measurement) -> list[str]:
    """Names of runs that the second lacks."""
    theirs = {run["name"] for run in second.runs}
    return [run["name"] for run in first.runs if run["name"] not in theirs]


def broken(limits: Sequence[Limit], differences: Sequence[Difference]) -> list[Difference]:
    """The differences that break a limit."""
    return [one for one in differences if any(limit.broken_by(one) for limit in limits)]


def figure_of(figures: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """A number within a run's figures; None where it has none."""
    found: Any = figures
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _without(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def _machine(measurement: Measurement) -> tuple[Any, ...]:
    around = measurement.surroundings
    return tuple(around.get(name) for name in ("processor", "cores", "device", "memory_gib"))
