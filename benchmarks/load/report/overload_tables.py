"""What more load than a server can do left of its goodput, and how soon the rest was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load.overload import GOODPUT_TARGET, REJECTION_TARGET_SECONDS, TARGET_FACTOR
from benchmarks.load.report.table import Table


def overload_table(conclusion: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each multiple of the capacity."""
    figures = {run["name"]: run["figures"] for run in runs}
    rows = []
    for step in conclusion["steps"]:
        found = figures[step["run"]]
        retry = found.get("retry_after_seconds")
        rows.append(
            (
                step["run"],
                f"{found['offered_req_s']:.2f}",
                f"{found['goodput_req_s']:.2f}",
                f"{step['goodput_share']:.1%}",
                _milliseconds(found["ttft_seconds"], "p99"),
                str(step["rejected"]),
                *(_milliseconds(found["rejection_seconds"], share) for share in ("p50", "p99")),
                "-" if retry is None else f"{retry['p50']:g}",
            )
        )
    headings = (
        "run",
        "offered req/s",
        "goodput req/s",
        "of the peak",
        "TTFT p99, ms",
        "rejected",
        "after p50, ms",
        "after p99, ms",
        "retry after, s",
    )
    peak = conclusion["peak"]
    note = (
        f"Capacity: {conclusion['capacity_req_s']:.2f} answers per second in the best closed loop. "
        f"Peak of goodput: {peak['goodput_req_s']:.2f} per second ({peak['run']})."
    )
    return Table("Beyond the capacity", headings, tuple(rows), (note, "Who was refused does not come again."))


def overload_lines(conclusion: Mapping[str, Any]) -> list[str]:
    """What came of the targets; no verdict where others used the machine during more than a fifth of the runs."""
    lines = []
    for step in conclusion["steps"]:
        if step["factor"] == TARGET_FACTOR:
            outcome = _outcome(step["goodput_share"] >= GOODPUT_TARGET, conclusion)
            lines.append(
                f"Goodput at twice the capacity: **{step['goodput_share']:.1%}** of its peak "
                f"({conclusion['peak']['run']}); at least {GOODPUT_TARGET:.0%} wanted: {outcome}."
            )
    slowest = [step["rejection_p99_seconds"] for step in conclusion["steps"] if step["rejected"]]
    known = [seconds for seconds in slowest if seconds is not None]
    if known:
        worst, count = max(known), sum(step["rejected"] for step in conclusion["steps"])
        outcome = _outcome(worst < REJECTION_TARGET_SECONDS, conclusion)
        lines.append(
            f"The rest was refused within **{1000 * worst:.1f} ms** (the greatest p99 of {count} rejections); "
            f"under {1000 * REJECTION_TARGET_SECONDS:.0f} ms wanted: {outcome}."
        )
    return lines


def _outcome(met: bool, conclusion: Mapping[str, Any]) -> str:
    return "no verdict on a disturbed machine" if conclusion["disturbed"] else "met" if met else "missed"


def _milliseconds(found: Mapping[str, Any] | None, share: str) -> str:
    return "-" if found is None else f"{1000 * found[share]:.1f}"
