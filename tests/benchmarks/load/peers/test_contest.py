"""Peers under load in turns: known servers for our gateway and a peer, and the tutorial's own service."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bases.tiny import make_tiny_base
from benchmarks.agreement.known_server import known_server
from benchmarks.closed_loop.errors import ServerStartError
from benchmarks.closed_loop.server import ServerSpec, running
from benchmarks.load.arrivals import parse_arrivals
from benchmarks.load.bench import prepare
from benchmarks.load.commands.app import bench_app
from benchmarks.load.peers.contest import Contest, long_enough
from benchmarks.load.peers.findings import conclude
from benchmarks.load.peers.lineup import Lineup
from benchmarks.load.peers.peer import GATEWAY, Peer
from benchmarks.load.peers.tutorial import tutorial_peer
from benchmarks.load.settings import load_bench_settings

SLOW = {"ttft_seconds": 0.05, "tpot_seconds": 0.01}


def server(name: str, home: Path, script: dict[str, float]) -> Peer:
    return Peer(known_server(name, home, script), ("completions",), adapters=False)


def contest_of(peers: tuple[Peer, ...], folder: Path, *, together: bool, said: list[str]) -> Contest:
    settings = load_bench_settings(seconds=1.5, warmup_seconds=0.2, prompt_tokens="8", answer_tokens="4")
    return Contest(
        Lineup(peers, {}, {}),
        settings,
        together=together,
        folder=folder,
        say=said.append,
        progress=lambda _: None,
    )


def test_the_tutorials_service_has_tokens_per_second_and_no_ttft(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "tiny")
    peers = (server(GATEWAY, tmp_path / "home", SLOW), tutorial_peer(base))
    measured = contest_of(peers, tmp_path, together=True, said=[]).run(
        [parse_arrivals("closed:1")], 1, "tutorial"
    )
    found = conclude(measured, "tutorial")
    gateway, tutorial = (turn.run.figures for turn in measured[0].turns)
    assert tutorial["counts"]["failed"] == 0
    assert tutorial["output_tok_s"] > 0
    assert tutorial["ttft_seconds"] is None
    assert gateway["ttft_seconds"]["p50"] >= 0.05
    assert gateway["http_cpu_ms_per_token"] > 0
    ratios = {
        figure["metric"]: figure["ratio"] for figure in found["arms"] if figure["arm"].startswith(GATEWAY)
    }
    assert ratios["output_tok_s"]["median"] == pytest.approx(
        gateway["output_tok_s"] / tutorial["output_tok_s"]
    )
    assert ratios["ttft_p50"] is None
    assert any("no TTFT" in note for note in found["notes"])
    assert any("ms of its HTTP process" in note for note in found["notes"])


def test_a_slow_server_gets_runs_in_which_every_worker_sends_a_few_requests(tmp_path: Path) -> None:
    with running([known_server("slow", tmp_path, SLOW)], logs=tmp_path, ready_seconds=120.0) as up:
        bench = prepare(load_bench_settings(url=up["slow"].url, seconds=10.0, warmup_seconds=1.0))
    closed, open_ = parse_arrivals("closed:2"), parse_arrivals("constant:2")
    assert long_enough(bench, closed, 3.0) is bench
    assert long_enough(bench, open_, 30.0) is bench
    settings = long_enough(bench, closed, 30.5).settings
    assert (settings.seconds, settings.warmup_seconds) == (92.0, 31.0)


def test_a_server_apart_is_started_for_each_turn_and_comes_back_where_it_was(tmp_path: Path) -> None:
    said: list[str] = []
    contest = contest_of((server(GATEWAY, tmp_path / "home", SLOW),), tmp_path, together=False, said=said)
    measured = contest.run([parse_arrivals("closed:2")], 1, GATEWAY)
    assert said.count("starting gateway") == 2  # to be looked at, and for its turn
    assert measured[0].turns[0].run.figures["counts"]["ok"] > 0


def test_the_command_compares_with_a_server_that_runs_and_keeps_everything(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with running([known_server("other", tmp_path / "home", SLOW)], logs=tmp_path, ready_seconds=120.0) as up:
        done = CliRunner().invoke(
            bench_app,
            [
                *("peers", "--base", "scripted", "--peer", f"other={up['other'].url}", "--rounds", "1"),
                *("--random-adapters", "2", "--api", "completions", "--concurrency", "2"),
                *("--seconds", "1", "--warmup-seconds", "0.2", "--answer-tokens", "4", "--out", str(out)),
            ],
        )
    assert done.exit_code == 0, done.output
    result = json.loads((out / "result.json").read_text())
    assert [run["name"] for run in result["runs"]] == [
        f"{name}, closed:2, round 1" for name in ("gateway", "gateway with 2 adapters", "other")
    ]
    against = {figure["arm"]: figure["against"] for figure in result["conclusion"]["arms"]}
    assert against["gateway, closed:2"] == "other, closed:2"
    assert against["gateway with 2 adapters, closed:2"] == "gateway, closed:2"
    assert against["other, closed:2"] is None
    asked = result["runs"][1]["adapters"]
    assert set(asked) <= {"random-0", "random-1"}
    assert "other: it ran already" in (out / "report.md").read_text()


def test_a_peer_that_does_not_come_up_ends_the_comparison_with_its_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model')"]
    broken = ServerSpec("vllm", "the stock server", "", "/health", command)
    peers = (Peer(broken, ("completions",), adapters=False),)
    with pytest.raises(ServerStartError, match="the stock server ended with exit code 1"):
        contest_of(peers, tmp_path, together=True, said=[]).run([parse_arrivals("closed:1")], 1, "vllm")
