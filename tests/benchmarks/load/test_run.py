"""Whole runs on a server with a scripted engine, whose delays are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from typer.testing import CliRunner

from benchmarks.agreement.known_server import known_server
from benchmarks.load.arrivals import parse_arrivals
from benchmarks.load.bench import prepare
from benchmarks.load.commands.app import bench_app
from benchmarks.load.errors import LoadOptionError, NothingMeasuredError, TargetError
from benchmarks.load.figures import DEFINITIONS
from benchmarks.load.record import Record
from benchmarks.load.run import RunResult
from benchmarks.load.settings import load_bench_settings
from benchmarks.server import Server, running
from benchmarks.truth import run_stalled

TTFT_SECONDS, TPOT_SECONDS, TOKENS = 0.4, 0.1, 9


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("load")
    spec = known_server("slow", folder / "home", {"ttft_seconds": TTFT_SECONDS, "tpot_seconds": TPOT_SECONDS})
    with running([spec], logs=folder, ready_seconds=120.0) as servers:
        yield servers["slow"]


def run_on(server: Server, arrivals: str, **given) -> RunResult:
    settings = {
        "seconds": 3.0,
        "warmup_seconds": 0.8,
        "answer_tokens": str(TOKENS),
        "slo": "own:ttft=0.5,tpot=0.15",
    }
    bench = prepare(load_bench_settings(url=server.url, arrivals=arrivals, **{**settings, **given}))
    return bench.run(arrivals, bench.load.arrivals)


@pytest.mark.parametrize(("arrivals", "api"), [("closed:4", "generate"), ("constant:8", "completions")])
def test_known_delays_are_measured(server, arrivals, api):
    """A busy machine makes a server slower than its script, never faster: the least of many is near the truth."""
    figures = (run := run_on(server, arrivals, api=api)).figures
    ok = [record for record in run.records if record.ok]
    for name, truth in (("ttft_seconds", TTFT_SECONDS), ("tpot_seconds", TPOT_SECONDS)):
        least = min(getattr(record, name) for record in ok)
        assert 0.99 * truth <= least <= 1.05 * truth
    assert figures["counts"]["failed"] == figures["counts"]["rejected"] == 0
    # Little's law: requests under way = rate x time, whatever the time was.
    under_way = figures["output_tok_s"] / TOKENS * figures["e2e_seconds"]["mean"]
    expected = 4.0 if arrivals == "closed:4" else 8.0 * figures["e2e_seconds"]["mean"]
    assert under_way == pytest.approx(expected, rel=0.06)


def test_limits_that_the_server_misses_leave_no_goodput(server):
    run = run_on(server, "constant:8", slo="own:ttft=0.39,tpot=0.15", seconds=1.0)
    assert run.figures["goodput_req_s"] == 0.0
    assert run.figures["counts"]["ok"] == run.figures["counts"]["measured"] > 0


def test_a_client_that_stood_still_makes_the_run_invalid(server):
    run = run_stalled(server.url)
    assert not run.valid
    assert run.findings[0].code == "client_late"
    assert run.figures["ttft_seconds"]["max"] > 1.0  # counted from when requests were due
    assert run.figures["ttft_sent_seconds"]["p50"] < 0.6


def test_clients_that_hang_up_are_no_failures(server):
    run = run_on(server, "constant:10", cancel_share=0.5, seconds=1.0)
    counts = run.figures["counts"]
    assert counts["cancelled"] > 0
    assert counts["failed"] == 0
    assert counts["ok"] + counts["cancelled"] == counts["measured"]


def test_requests_that_nobody_waits_for_count_in_tokens_alone(server):
    bench = prepare(load_bench_settings(url=server.url, seconds=1.5, warmup_seconds=0.0, answer_tokens="9"))
    # An answer takes 1.2 s: the first is waited for, the second cut off.
    cut = replace(bench, tail_seconds=0.5).run("cut", parse_arrivals("closed:2"))
    counts = cut.figures["counts"]
    assert counts["ok"] == counts["measured"] == 2
    assert [record.outcome for record in cut.records].count("unfinished") >= counts["unfinished"]
    assert all(record.done_seconds is None or record.done_seconds < 2.3 for record in cut.records)
    with pytest.raises(NothingMeasuredError):
        replace(bench, settings=bench.settings.model_copy(update={"seconds": 0.5}), tail_seconds=0.0).run(
            "nothing", parse_arrivals("closed:2")
        )


def test_several_processes_send_one_schedule(server):
    run = run_on(server, "constant:12", workers=2, seconds=1.0)
    assert run.client["workers"] == 2
    numbers = [record.number for record in run.records]
    assert len(set(numbers)) == len(numbers)
    assert run.figures["offered_req_s"] == pytest.approx(12.0, abs=1.1)


def test_the_command_leaves_report_result_and_requests(server, tmp_path):
    out = tmp_path / "out"
    given = ["--url", server.url, "--arrivals", "constant:10", "--seconds", "2", "--warmup-seconds", "0.5"]
    done = CliRunner().invoke(
        bench_app, ["run", *given, "--answer-tokens", "4", "--out", str(out), "--key", "secret-key"]
    )
    assert done.exit_code in (0, 1), done.output  # 1: this machine was too busy for the run to count
    assert "constant:10" in done.output
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == "hotswap-bench/1"
    records = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    measured = [r for r in records if 0.5 <= r["scheduled_seconds"] < 2.5]
    assert result["runs"][0]["figures"]["counts"]["measured"] == len(measured) == 20
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    for word in DEFINITIONS:
        assert word in page
        assert word in text
    assert "<script" not in page
    assert "http://" not in page.replace(server.url, "")
    for kept in (page, text, json.dumps(result)):
        assert "secret-key" not in kept
    same = CliRunner().invoke(bench_app, ["compare", str(out), str(out), "--fail-on", "goodput:-5%"])
    assert same.exit_code == 0, same.output


def test_a_sweep_is_one_result_with_a_run_for_each_rate(server, tmp_path):
    given = ["--url", server.url, "--rates", "4,8", "--seconds", "1.5", "--warmup-seconds", "0.5"]
    done = CliRunner().invoke(bench_app, ["sweep", *given, "--answer-tokens", "3", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert [run["name"] for run in json.loads((tmp_path / "result.json").read_text())["runs"]] == [
        "poisson:4",
        "poisson:8",
    ]


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(TargetError, match=r"http://127\.0\.0\.1:9"):
        prepare(load_bench_settings(url="http://127.0.0.1:9"))


def test_a_server_that_serves_no_models_is_no_target(server):
    with pytest.raises(TargetError):
        prepare(load_bench_settings(url=server.url + "/readyz"))


def test_an_adapter_that_is_not_served_is_named(server):
    with pytest.raises(TargetError, match="nobody"):
        prepare(load_bench_settings(url=server.url, adapters="nobody"))


def test_a_mix_of_no_adapters_is_refused(server):
    with pytest.raises(LoadOptionError, match="serves no adapter"):
        prepare(load_bench_settings(url=server.url, adapter_mix="skewed:2"))


def test_a_run_without_an_answer_is_no_run_of_zeros(tmp_path):
    spec = known_server("failing", tmp_path / "home", {"fail_after_tokens": 2})
    with running([spec], logs=tmp_path, ready_seconds=120.0) as servers:
        bench = prepare(load_bench_settings(url=servers["failing"].url, arrivals="closed:2", seconds=1.0))
        with pytest.raises(NothingMeasuredError, match="generation_failed"):
            bench.run("nothing", bench.load.arrivals)
        assert httpx.get(servers["failing"].url + "/readyz").status_code == 200


def test_a_record_survives_its_line():
    record = Record(1, 0.5, 0.5000001, "a", 4, outcome="ok", event_seconds=[1.0, 1.1], completion_tokens=2)
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))).event_seconds == [1.0, 1.1]
