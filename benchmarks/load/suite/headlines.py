"""The few figures that stand for each part, for the tiles on top of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.load.result_file import Measurement

_HELD = 0.9  # of requests within the limits
_GIB = 1024**3

# (value, what it is)
Headline = tuple[str, str]


def of_closed_loop(measurement: Measurement) -> list[Headline]:
    """The most tokens per second, one stream's, and what adapters cost at the highest concurrency."""
    runs = {run["name"]: run["figures"] for run in measurement.runs}
    loops = [loop for loop in measurement.conclusion["loops"] if loop["who"] == "adapters"]
    first, last = runs[loops[0]["run"]], runs[loops[-1]["run"]]
    most = f"{loops[-1]['concurrency']} at once"
    found = [(f"{last['output_tok_s']:.0f}", f"tok/s of all adapters, {most}")]
    if first["tpot_seconds"] is not None:
        least = loops[0]["concurrency"]
        found.append((_ms(first["tpot_seconds"]["p50"]), f"TPOT p50, {least} at once"))
    ratio = _ratio(measurement, loops[-1]["arm"], "output_tok_s")
    if ratio is not None:
        found.append((f"{ratio:.2f}", f"of the base's tok/s, {most}"))
    return found


def of_open_loop(measurement: Measurement) -> list[Headline]:
    """The highest rate with nearly all answers within the limits, its TTFT, and what the gateway adds."""
    overhead = [
        (
            f"{1000 * run['stages']['overhead_seconds']['mean']:.1f} ms",
            f"gateway overhead, mean at {run['name']}",
        )
        for run in measurement.runs[:1]
        if run.get("stages")
    ]
    held = [run for run in measurement.runs if run["figures"]["slo_attainment"] >= _HELD and run["valid"]]
    if not held:
        return [
            *overhead,
            ("none", f"of the rates has {_HELD:.0%} of its answers within {measurement.slo['name']}"),
        ]
    figures = max((run["figures"] for run in held), key=lambda one: float(one["offered_req_s"]))
    found = [
        (
            f"{figures['offered_req_s']:.1f}",
            f"req/s with {figures['slo_attainment']:.0%} within {measurement.slo['name']}",
        )
    ]
    if figures["ttft_seconds"] is not None:
        ttft = figures["ttft_seconds"]
        found.append(
            (f"{1000 * ttft['p50']:.0f} / {1000 * ttft['p99']:.0f}", "ms, TTFT p50 / p99 at that rate")
        )
    return [*found, *overhead]


def of_mixes(measurement: Measurement) -> list[Headline]:
    """How even the adapters fare when some are asked much more."""
    skewed = measurement.runs[-1]
    if skewed["fairness"] is None:
        return []
    return [(f"{skewed['fairness']:.2f}", f"fairness over adapters, {name_of(skewed)}")]


def of_swaps(measurement: Measurement) -> list[Headline]:
    """What swaps cost the others, and how long one takes."""
    found = [(f"{measurement.conclusion['swap']['p99_ratio']:.2f}", "times the others' TTFT p99, with swaps")]
    seconds = sorted(
        verb["seconds"] for run in measurement.runs for verb in run["swaps"] if verb["error"] is None
    )
    if seconds:
        found.append((_ms(seconds[len(seconds) // 2]), f"a swap under load, median of {len(seconds)}"))
    return found


def of_overload(measurement: Measurement) -> list[Headline]:
    """Goodput at more than the capacity."""
    (run,) = measurement.runs
    figures, capacity = run["figures"], measurement.conclusion["capacity_req_s"]
    refused = figures["counts"]["rejected"] / figures["counts"]["measured"]
    text = f"of the capacity is goodput at {run['name']}; {refused:.0%} refused"
    return [(f"{figures['goodput_req_s'] / capacity:.0%}", text)]


def of_idle(measurement: Measurement) -> list[Headline]:
    """Processor and memory."""
    cost = measurement.conclusion["idle"]
    return [
        (f"{cost['cpu_share']:.1%}", "of a core at rest"),
        (f"{cost['memory_bytes'] / _GIB:.1f} GiB", f"memory, with {cost['adapters']} adapters"),
    ]


def name_of(run: Mapping[str, Any]) -> str:
    """A run's name without the number of its round, of which a suite has one."""
    return str(run["name"]).removesuffix(", round 1")


def _ratio(measurement: Measurement, arm: str, metric: str) -> float | None:
    figures: list[Mapping[str, Any]] = list(measurement.conclusion["arms"])
    found = next((one for one in figures if one["arm"] == arm and one["metric"] == metric), None)
    return found["ratio"]["median"] if found is not None and found["ratio"] is not None else None


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
