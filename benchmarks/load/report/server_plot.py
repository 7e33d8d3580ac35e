"""What the server told of itself over time: requests in it and waiting, and its KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.inline_svg import INK
from benchmarks.load.report.drawing import COLOURS

_LINES = (
    ("running", "running", COLOURS[0]),
    ("waiting_in_gateway", "waiting in the gateway", COLOURS[3]),
    ("waiting_in_engine", "waiting in the engine", COLOURS[1]),
)


def fill_server(axes: Any, run: Mapping[str, Any]) -> None:
    """`run` has `server` with a series, and its window."""
    series = run["server"]["series"]
    for name, label, colour in _LINES:
        rows = [row for row in series if name in row]
        if rows:
            axes.plot(
                [row["at"] for row in rows],
                [row[name] for row in rows],
                color=colour,
                label=label,
                linewidth=1.4,
                marker=".",
                markersize=4,
            )
    cache = [row for row in series if "kv_cache_usage" in row]
    lines = list(axes.get_lines())
    if cache:
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        lines += other.plot(
            [row["at"] for row in cache],
            [100 * row["kv_cache_usage"] for row in cache],
            color=COLOURS[2],
            linestyle="--",
            linewidth=1.2,
            label="KV cache",
        )
        other.set_ylabel("KV cache in use, %")
        other.set_ylim(0, max(5.0, 1.1 * max(100 * row["kv_cache_usage"] for row in cache)))
    for edge in (run["window"]["start"], run["window"]["end"]):
        axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("seconds")
    axes.set_ylabel("requests")
    axes.set_ylim(bottom=0)
    if lines:
        axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=8)
