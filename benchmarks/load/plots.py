"""The plots of a report as SVG that stands inside a page, in the page's own colour."""

from __future__ import annotations

import io
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.inline_svg import INK, inline_svg
from benchmarks.load.result_file import Measurement
from benchmarks.load.run import RunResult

# Okabe and Ito's palette, told apart by people who see red and green alike.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
KINDS = ("throughput-latency", "goodput", "ttft", "tpot", "timeline", "adapters")
_SIZE_INCHES = (6.0, 3.3)  # small, so that words can be read on a phone
_MANY_ADAPTERS = 64


@dataclass(frozen=True, slots=True)
class Plot:
    """`svg` was made here and is put into the page as it is."""

    kind: str  # one of KINDS
    title: str
    caption: str
    svg: str


# kind, name of its ids, title, caption, what draws it
_Candidate = tuple[str, str, str, str, Callable[[Any], None]]


def plots_of(
    measurement: Measurement,
    runs: Sequence[RunResult],
    kinds: Container[str] = KINDS,
    *,
    prefix: str = "",
) -> list[Plot]:
    """Those of `kinds` that have something to show. `runs` brings the raw latencies.

    `prefix` sets ids apart where a page shows several measurements.
    """
    return [
        Plot(kind, title, caption, draw(prefix + name, fill))
        for kind, name, title, caption, fill in _candidates(measurement, runs)
        if kind in kinds
    ]


def _candidates(measurement: Measurement, runs: Sequence[RunResult]) -> Iterator[_Candidate]:
    if len(measurement.runs) > 1:
        yield (
            "throughput-latency",
            "throughput-latency",
            "Throughput against latency",
            "Median (line) and p99 (dotted) of TTFT. Hollow: the rate was not held, or the run does not count.",
            partial(_throughput_latency, measurement=measurement),
        )
        yield (
            "goodput",
            "goodput",
            "Goodput against offered rate",
            "The dotted line is a server that answers everything in time.",
            partial(_goodput, measurement=measurement),
        )
    for kind, title in (("ttft", "TTFT"), ("tpot", "TPOT")):
        name = f"{kind}_seconds"
        series = {run.name: _sorted(run, name) for run in runs}
        series = {name: values for name, values in series.items() if values}
        if series:
            yield (
                kind,
                name,
                f"{title}, share of requests",
                f"The dotted line is the limit for {title}.",
                partial(_cdf, series=series, limit_ms=1000 * measurement.slo[name]),
            )
    for run in measurement.runs:
        where = f": {run['name']}" if len(measurement.runs) > 1 else ""
        yield (
            "timeline",
            f"time-{run['name']}",
            f"Time line{where}",
            "Per second; what is measured lies between the dotted lines."
            + (" Shaded from top to bottom: adapters change." if run.get("swaps") else ""),
            partial(_timeline, run=run),
        )
        adapters = {name: f for name, f in run["adapters"].items() if f["ttft_seconds"] is not None}
        if len(adapters) > 1:
            yield (
                "adapters",
                f"adapters-{run['name']}",
                f"TTFT by adapter{where}",
                "Median (bar) and p99 (tick), the most asked for first.",
                partial(_by_adapter, adapters=adapters),
            )


def draw(name: str, fill: Callable[[Any], None]) -> str:
    """An SVG element with what `fill` puts on its axes; `name` is another one for each plot of a page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(colours, INK),
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        fill(axes)
        raw = io.StringIO()
        figure.savefig(raw, format="svg", metadata={"Date": None})
    return inline_svg(raw.getvalue(), name)


def _log_axis(axis: Any) -> None:
    """Logarithmic, with numbers as people write them, and enough of them where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    steps: tuple[float, ...] = (1.0, 2.0, 5.0)
    if high > 100 * low:
        steps = (1.0,)
    elif high < 5 * low:
        steps = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _throughput_latency(axes: Any, measurement: Measurement) -> None:
    runs = [run for run in measurement.runs if run["figures"]["ttft_seconds"] is not None]
    x = [run["figures"]["output_tok_s"] for run in runs]
    for share, line in (("p50", "-"), ("p99", ":")):
        y = [1000 * run["figures"]["ttft_seconds"][share] for run in runs]
        axes.plot(x, y, line, color=COLOURS[0], linewidth=1.2)
        for run, one, other in zip(runs, x, y, strict=True):
            held = run["valid"] and not any(f["code"] == "unsustained" for f in run["findings"])
            axes.plot(one, other, "o", color=COLOURS[0], fillstyle="full" if held else "none", markersize=6)
    for run, one in zip(runs, x, strict=True):
        y = 1000 * run["figures"]["ttft_seconds"]["p50"]
        axes.annotate(run["name"], (one, y), xytext=(5, -11), textcoords="offset points", fontsize=8)
    axes.set_xlabel("tokens per second")
    axes.set_ylabel("TTFT, ms")
    axes.set_xlim(left=0)
    axes.set_yscale("log")
    _log_axis(axes.yaxis)


def _goodput(axes: Any, measurement: Measurement) -> None:
    offered = [run["figures"]["offered_req_s"] for run in measurement.runs]
    good = [run["figures"]["goodput_req_s"] for run in measurement.runs]
    order = sorted(range(len(offered)), key=lambda place: offered[place])
    axes.plot([offered[p] for p in order], [good[p] for p in order], "o-", color=COLOURS[2], markersize=6)
    axes.plot([0, max(offered)], [0, max(offered)], ":", color=INK, linewidth=0.8)
    axes.set_xlabel("offered, requests per second")
    axes.set_ylabel("good, requests per second")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _cdf(axes: Any, series: Mapping[str, list[float]], limit_ms: float) -> None:
    for place, (name, values) in enumerate(series.items()):
        shares = [(number + 1) / len(values) for number in range(len(values))]
        axes.step(
            values, shares, where="post", color=COLOURS[place % len(COLOURS)], label=name, linewidth=1.4
        )
    axes.axvline(limit_ms, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("ms")
    axes.set_ylabel("share")
    axes.set_ylim(0, 1.02)
    axes.set_xscale("log")
    _log_axis(axes.xaxis)
    if len(series) > 1:
        axes.legend(frameon=False, loc="lower right", fontsize=8)


def _timeline(axes: Any, run: Mapping[str, Any]) -> None:
    rows = run["timeline"]
    at = [row["at"] for row in rows]
    axes.plot(at, [row["tokens"] for row in rows], color=COLOURS[0], linewidth=1.4, label="tokens")
    other = axes.twinx()
    other.spines["right"].set_visible(True)
    other.patch.set_alpha(0)
    other.plot(at, [row["in_flight"] for row in rows], color=COLOURS[4], linewidth=1.2, label="under way")
    for name, colour in (("rejected", COLOURS[3]), ("failed", COLOURS[1])):
        if any(row[name] for row in rows):
            other.plot(at, [row[name] for row in rows], color=colour, linewidth=1.2, label=name)
    for verb in run.get("swaps", ()):
        failed = verb["error"] is not None
        start, end = verb["at_seconds"], verb["at_seconds"] + verb["seconds"]
        axes.axvspan(start, end, color=COLOURS[1 if failed else 2], alpha=0.6 if failed else 0.2, linewidth=0)
    for edge in (run["window"]["start"], run["window"]["end"]):
        axes.axvline(edge, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("seconds")
    axes.set_ylabel("tokens per second")
    other.set_ylabel("requests")
    axes.set_ylim(bottom=0)
    other.set_ylim(bottom=0)
    handles = [*axes.get_lines()[:1], *other.get_lines()]
    axes.legend(handles, [str(h.get_label()) for h in handles], frameon=False, fontsize=8, loc="upper left")


def _by_adapter(axes: Any, adapters: Mapping[str, Any]) -> None:
    shown = list(adapters.items())[:_MANY_ADAPTERS]
    places = list(range(len(shown)))
    axes.bar(places, [1000 * fields["ttft_seconds"]["p50"] for _, fields in shown], color=COLOURS[0])
    axes.plot(
        places,
        [1000 * fields["ttft_seconds"]["p99"] for _, fields in shown],
        "_",
        color=COLOURS[1],
        markersize=9,
    )
    step = max(1, len(shown) // 16)
    axes.set_xticks(
        places[::step], [name[:14] for name, _ in shown[::step]], rotation=35, ha="right", fontsize=8
    )
    axes.set_ylabel("TTFT, ms")


def _sorted(run: RunResult, name: str) -> list[float]:
    values = [
        getattr(record, name)
        for record in run.records
        if record.ok and run.window.holds(record.scheduled_seconds)
    ]
    return sorted(1000 * value for value in values if value is not None)
