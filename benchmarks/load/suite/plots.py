"""The plots of a part: those of any measurement, and what adapters cost at each concurrency."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.load.report.drawing import COLOURS, Plot, drawn
from benchmarks.load.report.plots import plots_of
from benchmarks.load.result_file import Measurement
from benchmarks.load.run import RunResult


def part_plots(
    key: str,
    kinds: Sequence[str],
    measurement: Measurement,
    runs: Sequence[RunResult],
    *,
    png: bool = False,
) -> list[Plot]:
    """Those of `kinds` that have something to show; `key` sets their ids apart from other parts'.

    With `png` each is a PNG file too.
    """
    found = []
    if "tax" in kinds:
        caption = "Tokens per second of base and adapters by requests at once."
        fill = partial(_by_concurrency, measurement=measurement)
        found.append(drawn("tax", f"{key}-tax", "What adapters cost", caption, fill, png=png))
    return [*found, *plots_of(measurement, runs, kinds, prefix=f"{key}-", png=png)]


def _by_concurrency(axes: Any, measurement: Measurement) -> None:
    figures = {run["name"]: run["figures"] for run in measurement.runs}
    who: dict[str, dict[str, float]] = {}
    for loop in measurement.conclusion["loops"]:
        by_concurrency = who.setdefault(loop["who"], {})
        by_concurrency[f"{loop['concurrency']} at once"] = figures[loop["run"]]["output_tok_s"]
    width = 0.8 / max(1, len(who))
    for place, (name, values) in enumerate(who.items()):
        at = [number + place * width for number in range(len(values))]
        bars = axes.bar(at, list(values.values()), width=0.92 * width, color=COLOURS[place], label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=9, padding=2)
    labels = list(next(iter(who.values())))
    axes.set_xticks([number + width * (len(who) - 1) / 2 for number in range(len(labels))], labels)
    axes.set_ylabel("tokens per second")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
