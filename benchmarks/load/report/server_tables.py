"""Tables of what the server told: its own counts over the window, and where the time of requests went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load.figures.stages import OVERHEAD, STAGES
from benchmarks.load.report.table import Table

_GIB = 1024**3
_MOST_VERSIONS = 64
_SOURCES = {
    "answers": "each answer's own times",
    "gateway": "means of the gateway's histograms",
    "vllm": "means of vLLM's histograms",
}


def server_tables(runs: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Those for which there is something to show; where a server told nothing, why."""
    tables = []
    if (stages := stages_table(runs)) is not None:
        tables.append(stages)
    if any(run.get("server") for run in runs):
        tables.append(_counts(runs))
    if len(runs) == 1 and len(runs[0].get("server", {}).get("versions", {})) > 1:
        tables.append(_versions(runs[0]))
    return tables


def stages_table(runs: Sequence[Mapping[str, Any]]) -> Table | None:
    """Means of each stage of each run; None where no server told."""
    known = [run for run in runs if run.get("stages")]
    if not known:
        return None
    rows = []
    for run in known:
        split = run["stages"]
        overhead = split["overhead_seconds"]
        rows.append(
            (
                run["name"],
                *(f"{1000 * split['stages'][stage]:.1f}" for stage in STAGES),
                f"{1000 * overhead['mean']:.1f}",
                *(f"{1000 * overhead[share]:.1f}" if share in overhead else "-" for share in ("p50", "p99")),
                str(split["count"]),
                _SOURCES[split["source"]],
            )
        )
    headings = (
        "run",
        *(stage.replace("_", " ") for stage in STAGES),
        "overhead",
        "overhead p50",
        "overhead p99",
        "n",
        "from",
    )
    notes = (
        "; ".join(f"{stage.replace('_', ' ')}: {meaning}" for stage, meaning in STAGES.items()),
        f"gateway overhead: {OVERHEAD}",
    )
    return Table("Where the time of a request goes, mean milliseconds", headings, tuple(rows), notes)


def _counts(runs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [_counts_row(run["name"], run["server"]) for run in runs if len(run.get("server", {})) > 1]
    silent = [(run["name"], run["server"]["reason"]) for run in runs if run.get("server", {}).get("reason")]
    if not rows:
        return Table("The server's own count", ("run", "why /metrics told nothing"), tuple(silent))
    notes = [f"{name}: /metrics told nothing, or not all: {reason}" for name, reason in silent]
    slowest = max(run["server"].get("scrape_seconds", 0.0) for run in runs if run.get("server"))
    notes.append(
        "Means over the window (greatest), from /metrics, of which one reading took up to "
        f"{1000 * slowest:.0f} ms; counts are what was added within it, of all clients."
    )
    headings = (
        "run",
        "running",
        "waiting in gateway",
        "waiting in engine",
        "KV cache",
        "prefix cache hits",
        "prompt tokens",
        "tokens",
        "preemptions",
        "refused",
        "errors",
        "memory",
    )
    return Table("The server's own count", headings, tuple(rows), tuple(notes))


def _counts_row(name: str, server: Mapping[str, Any]) -> tuple[str, ...]:
    gauges, counters = server["gauges"], server["counters"]
    queries = counters.get("prefix_cache_queries")
    refused = ", ".join(f"{count:g} {code}" for code, count in server["rejections"].items())
    memory = ", ".join(
        f"{gauge.removeprefix('memory_').removesuffix('_bytes')} {values['max'] / _GIB:.2f} GiB"
        for gauge, values in gauges.items()
        if gauge.startswith("memory_")
    )
    return (
        name,
        *(_gauge(gauges.get(gauge)) for gauge in ("running", "waiting_in_gateway", "waiting_in_engine")),
        _gauge(gauges.get("kv_cache_usage"), share=True),
        f"{counters.get('prefix_cache_hits', 0.0) / queries:.1%}" if queries else "-",
        *(_count(counters.get(counter)) for counter in ("prompt_tokens", "completion_tokens", "preemptions")),
        refused or _count(counters.get("rejections")),
        _count(counters.get("errors")),
        memory or "-",
    )


def _versions(run: Mapping[str, Any]) -> Table:
    versions = list(run["server"]["versions"].items())
    columns = ("requests", "prompt_tokens", "completion_tokens", "errors")
    rows = tuple(
        (name, *(f"{counts.get(column, 0.0):g}" for column in columns))
        for name, counts in versions[:_MOST_VERSIONS]
    )
    more = len(versions) - _MOST_VERSIONS
    notes = (f"and {more} more",) if more > 0 else ()
    headings = ("version", "requests", "prompt tokens", "tokens", "errors")
    return Table("The server's count by version", headings, rows, notes)


def _gauge(values: Mapping[str, float] | None, *, share: bool = False) -> str:
    if values is None:
        return "-"
    if share:
        return f"{values['mean']:.1%} ({values['max']:.1%})"
    return f"{values['mean']:.1f} ({values['max']:g})"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
