"""Every plot of a report is drawn from made-up runs, as an element of a page and as a picture."""

from __future__ import annotations

import re
from typing import Any

import pytest

from benchmarks.inline_svg import INK
from benchmarks.load.client.record import Record
from benchmarks.load.figures.figures import adapter_figures, run_figures, timeline
from benchmarks.load.figures.slo import parse_slo
from benchmarks.load.figures.stages import STAGES
from benchmarks.load.report.drawing import Plot, file_name, write_pngs
from benchmarks.load.report.page import render_page
from benchmarks.load.report.plots import KINDS, plots_of
from benchmarks.load.report.tables import report_tables
from benchmarks.load.result_file import Measurement
from benchmarks.load.run import RunResult
from benchmarks.load.window import Window

SLO = parse_slo("chat")
WINDOW = Window(1.0, 4.0)


def records(adapters: int) -> list[Record]:
    return [
        Record(
            number,
            due := number / 10,
            due,
            f"adapter-{number % adapters}" if adapters else None,
            2,
            outcome="ok",
            event_seconds=[due + 0.1 + number / 1000, due + 0.2],
            done_seconds=due + 0.2,
            prompt_tokens=3,
            completion_tokens=2,
        )
        for number in range(40)
    ]


def run_of(name: str, *, adapters: int = 2, told: bool = True) -> RunResult:
    asked = records(adapters)
    server: dict[str, Any] = {"reason": "it answers 404"}
    stages = None
    if told:
        series = [
            {"at": float(at), "running": 2.0, "waiting_in_gateway": 1.0, "kv_cache_usage": 0.1 * at}
            for at in (1, 4)
        ]
        server = {
            "reason": None,
            "scrapes": 2,
            "scrape_seconds": 0.01,
            "gauges": {
                "running": {"mean": 2.0, "max": 3.0},
                "memory_gateway_bytes": {"mean": 1.0, "max": 2**30},
            },
            "counters": {"prefix_cache_queries": 10.0, "prefix_cache_hits": 4.0, "preemptions": 1.0},
            "rejections": {"queue_full": 7.0},
            "versions": {"base": {"requests": 30.0}, "adapter-0@3f2a91c0": {"requests": 10.0}},
            "series": series,
        }
        stages = {
            "source": "gateway",
            "count": 40,
            "stages": dict.fromkeys(STAGES, 0.01) | {"rest": -0.001},
            "overhead_seconds": {"n": 40, "mean": 0.019},
        }
    return RunResult(
        name=name,
        records=asked,
        window=WINDOW,
        figures=run_figures(asked, WINDOW, SLO),
        adapters=adapter_figures(asked, WINDOW, SLO),
        fairness=None,
        findings=[],
        timeline=timeline(asked, WINDOW.end),
        schedule_digest="0" * 64,
        client={"workers": 1, "sent": 40, "cpu_share": 0.1},
        server=server,
        stages=stages,
    )


def measurement_of(runs: list[RunResult], **conclusion: Any) -> Measurement:
    return Measurement(
        mode="sweep",
        command="hotswap bench sweep",
        target={"base": "base", "context_tokens": 64, "url": "here"},
        load={},
        slo=SLO.shown(),
        surroundings={"processor": "p", "cores": 2, "memory_gib": 1.0, "packages": {}, "commit": None},
        runs=[run.to_dict() for run in runs],
        created_at="2026-01-01",
        conclusion=conclusion,
    )


def arms(*names: str) -> dict[str, Any]:
    spread = {"median": 2.0, "low": 1.0, "high": 3.0, "count": 2}
    return {
        "rounds": 2,
        "baseline": names[0],
        "arms": [
            {"arm": name, "metric": metric, "value": spread, "ratio": None, "against": None}
            for name in names
            for metric in ("output_tok_s", "ttft_p50")
        ],
    }


def kinds(plots: list[Plot]) -> list[str]:
    return list(dict.fromkeys(plot.kind for plot in plots))


def test_a_sweep_has_everything_but_arms_as_elements_of_a_page() -> None:
    runs = [run_of("poisson:1"), run_of("poisson:2")]
    plots = plots_of(measurement_of(runs), runs)
    assert kinds(plots) == [kind for kind in KINDS if kind != "arms"]
    assert len({file_name(plot) for plot in plots}) == len(plots)
    for plot in plots:
        assert plot.svg.startswith("<svg")
        assert INK not in plot.svg
        assert "http" not in plot.svg
    page = render_page(measurement_of(runs), plots)
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(identifiers)) == len(identifiers)


def test_pictures_are_files_of_their_own_in_place_of_those_that_were_there(tmp_path) -> None:
    runs = [run_of("poisson:1")]
    plots = plots_of(measurement_of(runs), runs, ("stages", "heat-map"), png=True)
    (tmp_path / "old.png").write_bytes(b"")
    write_pngs(plots, tmp_path)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(found) == {"stages.png", "heat-map-poisson-1.png"}
    assert all(picture.startswith(b"\x89PNG") for picture in found.values())


def test_arms_are_side_by_side_and_their_rounds_are_pooled() -> None:
    runs = [run_of(f"{arm}, round {number}") for number in (1, 2) for arm in ("base", "four")]
    plots = plots_of(measurement_of(runs, **arms("base", "four")), runs)
    assert kinds(plots) == [kind for kind in KINDS if kind not in ("throughput-latency", "goodput")]
    assert [plot.name for plot in plots if plot.kind == "timeline"] == [
        "time-base, round 1",
        "time-four, round 1",
    ]
    distribution = next(plot.svg for plot in plots if plot.kind == "ttft")
    assert "four" in distribution
    assert ", round" not in distribution


def test_what_a_server_did_not_tell_is_not_drawn_but_said() -> None:
    runs = [run_of("closed:1", adapters=0, told=False)]
    assert kinds(plots_of(measurement_of(runs), runs)) == ["ttft", "tpot", "timeline"]
    tables = {table.title: table for table in report_tables(measurement_of(runs))}
    assert "Where the time of a request goes, mean milliseconds" not in tables
    assert tables["The server's own count"].rows == (("closed:1", "it answers 404"),)


def test_a_caller_may_choose_and_set_apart() -> None:
    runs = [run_of("closed:1")]
    plots = plots_of(measurement_of(runs), runs, ("stages",), prefix="part-")
    assert [(plot.kind, plot.name, plot.png) for plot in plots] == [("stages", "part-stages", b"")]


def test_the_tables_show_stages_overhead_and_the_servers_count() -> None:
    tables = {table.title: table for table in report_tables(measurement_of([run_of("closed:1")]))}
    stages = tables["Where the time of a request goes, mean milliseconds"]
    row = dict(zip(stages.headings, stages.rows[0], strict=True))
    assert (row["prefill"], row["rest"], row["overhead"], row["overhead p50"]) == (
        "10.0",
        "-1.0",
        "19.0",
        "-",
    )
    count = tables["The server's own count"]
    told = dict(zip(count.headings, count.rows[0], strict=True))
    assert (told["running"], told["prefix cache hits"], told["refused"]) == (
        "2.0 (3)",
        "40.0%",
        "7 queue_full",
    )
    assert (told["memory"], told["KV cache"]) == ("gateway 1.00 GiB", "-")
    versions = tables["The server's count by version"]
    assert [line[:2] for line in versions.rows] == [("base", "30"), ("adapter-0@3f2a91c0", "10")]


def test_rejections_stand_apart_from_failures_with_their_own_latency() -> None:
    run = run_of("closed:1")
    run.records += [
        Record(90, 2.0, 2.0, None, 2, outcome="rejected", status=429, code="queue_full", done_seconds=2.05),
        Record(91, 2.0, 2.0, None, 2, outcome="cut", code="no_last_event", done_seconds=2.5),
    ]
    run.figures = run_figures(run.records, WINDOW, SLO)
    tables = {table.title: table for table in report_tables(measurement_of([run]))}
    assert tables["Requests without a whole answer"].rows == (
        ("closed:1", "rejected", "queue_full", "1"),
        ("closed:1", "cut", "no_last_event", "1"),
    )
    latency = {row[1]: row[2] for row in tables["Latency, milliseconds"].rows}
    assert latency["rejection"] == "50.0"


@pytest.mark.parametrize(("name", "expected"), [("time-poisson:0.5", "time-poisson-0-5"), ("../x/", "x")])
def test_a_file_is_called_after_its_plot_and_stays_in_its_folder(name: str, expected: str) -> None:
    assert file_name(Plot("ttft", "", "", "", name)) == expected
