"""Two plots as SVG that stand inside a page: quality against size, and quality against speed.

Lines and text take the colour of the page around them, so that they can be read in light, dark and print. Nothing
in them names an address.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.inline_svg import INK, inline_svg
from benchmarks.quantisation.report import MachineFigures, Report
from benchmarks.quantisation.wording import MIB

# Okabe and Ito's palette, told apart by people who see red and green alike; shapes differ too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_ORIGINAL = "original"
_WIDTH_INCHES, _HEIGHT_INCHES = 7.2, 4.0


@dataclass(frozen=True, slots=True)
class Point:
    """One form or server: `low` and `high` are the ends of the interval of `y`, in its unit."""

    label: str
    group: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def size_points(report: Report, text: str = "chat") -> list[Point]:
    """Mean KL in nats over MiB on disk, of each quantised form, and the original at 0; none without a form."""
    found = []
    for form in report.made.merged:
        figures = report.quality.get(f"{form.scheme}/{text}")
        if form.scheme is not None and figures is not None:
            kl = figures.mean_kl_nats
            found.append(Point(form.scheme, form.scheme, form.disk_bytes / MIB, kl.value, kl.low, kl.high))
    original = report.made.merged[0].disk_bytes / MIB
    return [Point(_ORIGINAL, _ORIGINAL, original, 0.0), *found] if found else []


def speed_points(report: Report, figures: MachineFigures, text: str = "chat") -> list[Point]:
    """Mean KL in nats over tokens per second against float32, of each other server at each concurrency."""
    found = []
    for cell in figures.speed.cells if figures.speed is not None else ():
        scheme, slash, dtype = cell.served.partition("/")
        quality = report.quality.get(f"{scheme}/{text}")
        if quality is not None and cell.throughput_ratio is not None:
            kl = quality.mean_kl_nats
            name = f"{scheme}, {dtype}" if slash else f"{_ORIGINAL}, {scheme}"
            times = cell.throughput_ratio.value
            found.append(Point(f"c={cell.concurrency}", name, times, kl.value, kl.low, kl.high))
    return found


def quality_against_size(report: Report) -> str:
    """SVG; empty where there is nothing to draw."""
    points = size_points(report)
    return _draw(points, "files of the weights, MiB", origin=0.0, name="size") if points else ""


def quality_against_speed(report: Report, label: str) -> str:
    """SVG of one machine; empty where there is nothing to draw."""
    points = speed_points(report, report.machines[label])
    text = "tokens per second, times those of float32"
    return _draw(points, text, origin=0.0, line=1.0, name=f"speed-{label}") if points else ""


def _draw(
    points: Sequence[Point], x_label: str, *, name: str, origin: float, line: float | None = None
) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
        ),
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        groups = list(dict.fromkeys(point.group for point in points))
        for place, group in enumerate(groups):
            _scatter(axes, [point for point in points if point.group == group], group, place)
        if line is not None:
            axes.axvline(line, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(left=origin, right=1.15 * max(point.x for point in points))
        axes.set_ylim(bottom=0, top=1.2 * max(point.high or point.y for point in points) or 1.0)
        axes.set_xlabel(x_label)
        axes.set_ylabel("mean KL to the original, nats per token")
        axes.legend(frameon=False, loc="best")
        raw = io.StringIO()
        figure.savefig(raw, format="svg", metadata={"Date": None})
    return inline_svg(raw.getvalue(), name)


def _scatter(axes: Any, points: Sequence[Point], group: str, place: int) -> None:
    colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
    low = [point.y - (point.low if point.low is not None else point.y) for point in points]
    high = [(point.high if point.high is not None else point.y) - point.y for point in points]
    axes.errorbar(
        [point.x for point in points],
        [point.y for point in points],
        yerr=[low, high],
        fmt=marker,
        color=colour,
        markersize=8,
        elinewidth=1,
        capsize=3,
        label=group,
    )
    for point in points:
        if point.label != group:
            axes.annotate(
                point.label, (point.x, point.y), xytext=(7, 5), textcoords="offset points", fontsize=9
            )
