"""Whole runs on a server with a scripted engine, whose delays are known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from benchmarks.agreement.known_server import known_server
from benchmarks.agreement.timed_engine import ServedRequest, read_moments
from benchmarks.load.bench import Bench, prepare
from benchmarks.load.client.record import Record
from benchmarks.load.commands.app import bench_app
from benchmarks.load.errors import LoadOptionError, NothingMeasuredError, TargetError
from benchmarks.load.figures.figures import DEFINITIONS
from benchmarks.load.run import RunResult
from benchmarks.load.settings import load_bench_settings
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.server import Server, running
from benchmarks.statistics import percentile
from benchmarks.truth import run_stalled
from tests.patience import patient

TTFT_SECONDS, TPOT_SECONDS, TOKENS = 0.4, 0.1, 9
PROMPT_TOKENS = 100  # of one byte each


@pytest.fixture(scope="module")
def moments(tmp_path_factory) -> Path:
    """Where the server writes down when it did what."""
    return Path(tmp_path_factory.mktemp("moments"), "moments.jsonl")


@pytest.fixture(scope="module")
def server(tmp_path_factory, moments) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("load")
    script = {"ttft_seconds": TTFT_SECONDS, "tpot_seconds": TPOT_SECONDS}
    spec = known_server("slow", folder / "home", script, moments=moments)
    with running([spec], logs=folder, ready_seconds=120.0) as servers:
        yield servers["slow"]


def bench_on(server: Server, arrivals: str, **given) -> Bench:
    settings = {
        "seconds": 3.0,
        "warmup_seconds": 0.8,
        "prompt_tokens": str(PROMPT_TOKENS),
        "answer_tokens": str(TOKENS),
        "slo": "own:ttft=0.5,tpot=0.15",
    }
    return prepare(load_bench_settings(url=server.url, arrivals=arrivals, **{**settings, **given}))


def run_on(server: Server, arrivals: str, **given) -> RunResult:
    bench = bench_on(server, arrivals, **given)
    return bench.run(arrivals, bench.load.arrivals)


@dataclass(frozen=True)
class Seen:
    """One request from both sides; seconds from the start of the run."""

    record: Record
    came: float
    given: list[float]  # when the server gave each token
    got: list[float]  # when the client had it; never: infinity


def run_and_look(server: Server, moments: Path, arrivals: str, **given) -> tuple[RunResult, list[Seen]]:
    """A run with a seed, and so texts, of its own; and its requests beside what the server wrote of them."""
    started: list[float] = []

    @contextmanager
    def note_start(start_at: float) -> Iterator[tuple[()]]:
        started.append(start_at)
        yield ()

    bench = replace(bench_on(server, arrivals, **given), beside=lambda _: note_start)
    run = bench.run(arrivals, bench.load.arrivals)
    served, start = read_moments(moments), started[0]
    seen = []
    for record in run.records:
        own = served.get(bench.prompts.prompt(record.number, PROMPT_TOKENS), ServedRequest())
        tokens = [moment - start for moment in own.token_seconds]
        got = [*record.event_seconds, *[math.inf] * (len(tokens) - len(record.event_seconds))]
        seen.append(Seen(record, own.came_seconds - start, tokens, got))
    return run, seen


@pytest.mark.parametrize(
    ("arrivals", "api", "seed"), [("closed:4", "generate", 101), ("constant:8", "completions", 102)]
)
def test_known_delays_are_measured(server, moments, arrivals, api, seed):
    """Beside the server's own times: a busy machine makes both sides late, and what is right stays so."""
    run, seen = run_and_look(server, moments, arrivals, api=api, seed=seed)
    figures, window = run.figures, run.window
    assert figures["counts"]["failed"] == figures["counts"]["rejected"] == 0
    ok = [one for one in seen if one.record.ok]
    assert all(len(one.given) == len(one.record.event_seconds) == TOKENS for one in ok)
    for one in ok:
        # Nobody hears of anything before it has happened.
        assert one.record.scheduled_seconds <= one.record.sent_seconds <= one.came
        assert all(given <= got for given, got in zip(one.given, one.got, strict=True))
        assert (one.record.done_seconds or 0.0) >= one.got[-1]
        # A server on a busy machine is slower than its script, never faster.
        assert one.given[0] - one.came >= 0.99 * TTFT_SECONDS
    # What the client adds is the way, which is short at least once: less than would hide one token.
    added = [(one.record.ttft_sent_seconds or 0.0) - (one.given[0] - one.came) for one in ok]
    assert min(added) < TPOT_SECONDS / 2
    apart = [(one.record.tpot_seconds or 0.0) - (one.given[-1] - one.given[0]) / (TOKENS - 1) for one in ok]
    assert min(map(abs, apart)) < 0.02 * TPOT_SECONDS
    own = percentile(
        [one.given[0] - one.came for one in ok if window.holds(one.record.scheduled_seconds)], 0.5
    )
    assert own <= figures["ttft_sent_seconds"]["p50"] <= own + max(added)
    # Every token that the server gave counts once: in the window, but for those that were on the way at its ends.
    given = sum(window.start < moment <= window.end for one in seen for moment in one.given)
    for end, sign in ((window.start, 1), (window.end, -1)):
        given += sign * sum(
            moment <= end < got for one in seen for moment, got in zip(one.given, one.got, strict=True)
        )
    assert figures["output_tok_s"] * window.seconds == pytest.approx(given, abs=0.1)


def test_a_closed_loop_has_all_its_workers_at_work_and_an_open_one_keeps_its_time(server):
    closed = run_on(server, "closed:4")
    edges = sorted(
        [(record.sent_seconds, 1) for record in closed.records]
        + [(record.done_seconds, -1) for record in closed.records if record.done_seconds is not None]
    )
    assert max(accumulate(step for _, step in edges)) == 4
    assert sum(1 for record in closed.records if record.done_seconds is None) <= 4
    rest = [
        min((later.sent_seconds for later in closed.records if later.sent_seconds >= done), default=done)
        - done
        for record in closed.records
        if (done := record.done_seconds) is not None
    ]
    assert min(rest) < TPOT_SECONDS / 2  # whoever has an answer sends again at once
    opened = run_on(server, "constant:8", seconds=1.0)
    assert opened.figures["offered_req_s"] == 8.0
    due = sorted(record.scheduled_seconds for record in opened.records)
    assert due == pytest.approx([place / 8 for place in range(len(due))], abs=1e-6)


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


def test_requests_that_nobody_waits_for_count_in_tokens_alone(server, tmp_path):
    trace = tmp_path / "trace.jsonl"
    # An answer of half a second, which is waited for, and one of 200 s, which is not.
    trace.write_text(
        "".join(json.dumps({"at_seconds": 0.0, "max_tokens": count}) + "\n" for count in (2, 2000))
    )
    bench = bench_on(server, f"trace:{trace}", seconds=1.0, warmup_seconds=0.0)
    cut = replace(bench, tail_seconds=patient(3.0)).run("cut", bench.load.arrivals)
    counts = cut.figures["counts"]
    assert (counts["ok"], counts["measured"], counts["unfinished"]) == (1, 1, 1)
    short, long = sorted(cut.records, key=lambda record: record.max_tokens)
    assert (short.outcome, long.outcome, long.done_seconds) == ("ok", "unfinished", None)
    assert cut.figures["e2e_seconds"]["n"] == 1
    events = [moment for record in cut.records for moment in record.event_seconds]
    counted = sum(cut.window.start < moment <= cut.window.end for moment in events)
    assert cut.figures["output_tok_s"] * cut.window.seconds == pytest.approx(counted, abs=0.01)
    with pytest.raises(NothingMeasuredError):
        replace(bench_on(server, "closed:2", seconds=0.5, warmup_seconds=0.0), tail_seconds=0.0).run(
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
    assert done.exit_code in (0, 1), done.output  # as above
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
