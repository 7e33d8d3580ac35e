"""What changes of adapters took, and what swaps cost the others, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load.report.table import Table
from benchmarks.statistics import percentile

TARGET_RATIO = 1.10  # p99 TTFT of the other adapters with swaps, over without


def changes_table(runs: Sequence[Mapping[str, Any]]) -> Table | None:
    """Seconds of every verb and of each of its phases over all runs; None when no adapter changed."""
    verbs = [verb for run in runs for verb in run.get("swaps", ())]
    rows = []
    for kind in ("load", "replace", "unload"):
        ours = [verb for verb in verbs if verb["kind"] == kind]
        good = [verb for verb in ours if verb["error"] is None]
        if ours:
            failed = str(len(ours) - len(good))
            rows.append((kind, str(len(ours)), failed, *_quantiles([verb["seconds"] for verb in good])))
        phases: dict[str, list[float]] = {}
        for verb in good:
            for phase, seconds in verb["phase_seconds"].items():
                phases.setdefault(phase, []).append(seconds)
        rows += [
            (f"{kind}: {phase}", str(len(values)), "", *_quantiles(values))
            for phase, values in phases.items()
        ]
    if not rows:
        return None
    notes = ["A verb counts from the admin request to its answer; phases are as the gateway measured them."]
    errors = sorted({verb["error"] for verb in verbs if verb["error"] is not None})
    notes += [f"failed: {error}" for error in errors[:8]]
    headings = ("verb", "number", "failed", "p50 ms", "p99 ms", "most ms")
    return Table("Changes of adapters", headings, tuple(rows), tuple(notes))


def swap_lines(conclusion: Mapping[str, Any]) -> list[str]:
    """What `hotswap bench swap` was to show, as it came out, and what failed."""
    found = conclusion["swap"]
    low, high = found["p99_ratio_interval"]
    median = next(
        figure["ratio"]["median"]
        for figure in conclusion["arms"]
        if figure["metric"] == "ttft_p99" and figure["ratio"] is not None
    )
    held = median < TARGET_RATIO and found["p99_ratio"] < TARGET_RATIO
    answers = ", ".join(f"{count} {arm}" for arm, count in found["answers"].items())
    failed = sum(found["failures"].values())
    lines = [
        f"p99 TTFT of the other adapters rises by less than {TARGET_RATIO - 1:.0%}: {_met(held)}. Over all answers "
        f"({answers}) it is {found['p99_ratio']:.3f} times as long with a swap every {found['every_seconds']:g} s "
        f"(95 %: {low:.3f} to {high:.3f}); the median of the rounds is {median:.3f}.",
        f"{found['swaps']} swaps, {found['requests']} requests, {failed} failures: {_met(not failed)}.",
    ]
    lines += [f"Failed, {count} times: {reason}" for reason, count in list(found["failures"].items())[:8]]
    return lines


def _quantiles(values: Sequence[float]) -> tuple[str, str, str]:
    if not values:
        return "-", "-", "-"
    p50, p99, most = percentile(values, 0.5), percentile(values, 0.99), max(values)
    return f"{1000 * p50:.1f}", f"{1000 * p99:.1f}", f"{1000 * most:.1f}"


def _met(true: bool) -> str:
    return "met" if true else "**MISSED**"
