"""Which plots a report has, and the curves among them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.inline_svg import INK
from benchmarks.load.figures.slo import Slo
from benchmarks.load.report.bars import MOST_BARS, fill_arms, fill_stages
from benchmarks.load.report.drawing import COLOURS, Fill, Plot, drawn, log_axis
from benchmarks.load.report.heat_map import fill_heat_map, heat_map
from benchmarks.load.report.heat_scales import attainment_scale, ttft_scale
from benchmarks.load.report.server_plot import fill_server
from benchmarks.load.result_file import Measurement
from benchmarks.load.run import RunResult

KINDS = (
    "arms",
    "throughput-latency",
    "goodput",
    "ttft",
    "tpot",
    "stages",
    "timeline",
    "server",
    "adapters",
    "heat-map",
    "attainment",
)
_MANY_ADAPTERS = 64
_MANY_RUNS = 12  # of more only every so many is drawn over time
_FIRST_ROUND = ", round 1"

# kind, name of its ids and file, title, caption, what draws it
_Candidate = tuple[str, str, str, str, Fill]


def plots_of(
    measurement: Measurement,
    runs: Sequence[RunResult],
    kinds: Container[str] = KINDS,
    *,
    prefix: str = "",
    png: bool = False,
) -> list[Plot]:
    """Those of `kinds` that have something to show. `runs` brings the raw latencies.

    `prefix` sets ids apart where a page shows several measurements. With `png` each is a PNG file too.
    """
    return [
        drawn(kind, prefix + name, title, caption, fill, png=png)
        for kind, name, title, caption, fill in _candidates(measurement, runs)
        if kind in kinds
    ]


def _candidates(measurement: Measurement, runs: Sequence[RunResult]) -> Iterator[_Candidate]:
    in_turns = "arms" in measurement.conclusion
    if in_turns:
        yield (
            "arms",
            "arms",
            "Side by side",
            "Median of the rounds (bar), least to greatest (whisker).",
            partial(fill_arms, figures=measurement.conclusion["arms"]),
        )
    elif len(measurement.runs) > 1:
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
            "The dotted line is a server that answers everything in time"
            + ("; the dashed one is the capacity." if "capacity_req_s" in measurement.conclusion else "."),
            partial(_goodput, measurement=measurement),
        )
    yield from _distributions(measurement, runs, by_arm=in_turns)
    splits = {run["name"]: run["stages"]["stages"] for run in measurement.runs if run.get("stages")}
    if splits:
        yield (
            "stages",
            "stages",
            "Where the time of a request goes",
            "Mean of answers that ended in the window; the stages are explained below.",
            partial(fill_stages, splits=dict(list(splits.items())[:MOST_BARS])),
        )
    results = {run.name: run for run in runs}
    for run in measurement.runs:
        if (in_turns and not run["name"].endswith(_FIRST_ROUND)) or not _drawn(run, measurement):
            continue
        yield from _over_time(measurement, run, results.get(run["name"]))


def _drawn(run: Mapping[str, Any], measurement: Measurement) -> bool:
    """Whether a run has plots of its own: of very many only some."""
    names = [one["name"] for one in measurement.runs]
    every = -(-len(names) // _MANY_RUNS)
    return "arms" in measurement.conclusion or names.index(run["name"]) % every == 0


def _distributions(
    measurement: Measurement, runs: Sequence[RunResult], *, by_arm: bool
) -> Iterator[_Candidate]:
    for kind, title in (("ttft", "TTFT"), ("tpot", "TPOT")):
        name = f"{kind}_seconds"
        series: dict[str, list[float]] = {}
        for run in runs:
            label = run.name.rpartition(", round ")[0] if by_arm else run.name
            if not label:  # no turn of an arm: a step of a search for a rate
                continue
            series.setdefault(label, []).extend(_milliseconds(run, name))
        series = {label: sorted(values) for label, values in series.items() if values}
        if series:
            yield (
                kind,
                name,
                f"{title}, share of requests",
                f"The dotted line is the limit for {title}.",
                partial(_cdf, series=series, limit_ms=1000 * measurement.slo[name]),
            )


def _over_time(
    measurement: Measurement, run: Mapping[str, Any], result: RunResult | None
) -> Iterator[_Candidate]:
    where = f": {run['name']}" if len(measurement.runs) > 1 else ""
    yield (
        "timeline",
        f"time-{run['name']}",
        f"Time line{where}",
        "Per second; what is measured lies between the dotted lines."
        + (" Shaded from top to bottom: adapters change." if run.get("swaps") else ""),
        partial(_timeline, run=run),
    )
    if run.get("server", {}).get("series"):
        yield (
            "server",
            f"server-{run['name']}",
            f"The server's own count{where}",
            "From its /metrics; what is measured lies between the dotted lines.",
            partial(fill_server, run=run),
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
    if result is not None:
        yield from _heat_maps(measurement, run, result, where)


def _heat_maps(
    measurement: Measurement, run: Mapping[str, Any], result: RunResult, where: str
) -> Iterator[_Candidate]:
    slo = Slo(**measurement.slo)
    for kind, title, scale, what in (
        ("heat-map", "Adapters over time", ttft_scale(slo.ttft_seconds), "Median TTFT of the requests"),
        (
            "attainment",
            "SLO attainment over time",
            attainment_scale(slo),
            "Share within the SLO of the requests",
        ),
    ):
        found = heat_map(result.records, run["window"]["end"], scale)
        if found is not None:
            caption = f"{what} that were due in each cell; empty: none were. The most asked for first."
            fill = partial(fill_heat_map, found=found, window=run["window"])
            yield kind, f"{kind}-{run['name']}", f"{title}{where}", caption, fill


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
    log_axis(axes.yaxis)


def _goodput(axes: Any, measurement: Measurement) -> None:
    offered = [run["figures"]["offered_req_s"] for run in measurement.runs]
    good = [run["figures"]["goodput_req_s"] for run in measurement.runs]
    order = sorted(range(len(offered)), key=lambda place: offered[place])
    axes.plot([offered[p] for p in order], [good[p] for p in order], "o-", color=COLOURS[2], markersize=6)
    axes.plot([0, max(offered)], [0, max(offered)], ":", color=INK, linewidth=0.8)
    capacity = measurement.conclusion.get("capacity_req_s")
    if capacity is not None:
        axes.axvline(capacity, color=INK, linewidth=0.8, linestyle="--")
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
    log_axis(axes.xaxis)
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


def _milliseconds(run: RunResult, name: str) -> list[float]:
    values = [
        getattr(record, name)
        for record in run.records
        if record.ok and run.window.holds(record.scheduled_seconds)
    ]
    return [1000 * value for value in values if value is not None]
