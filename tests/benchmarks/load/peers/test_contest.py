"""Peers under load in turns: known servers for our gateway and a peer, and the tutorial's own service."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bases.tiny import make_tiny_base
from benchmarks.agreement.known_server import known_server
from benchmarks.errors import ServerStartError
from benchmarks.load.commands.app import bench_app
from benchmarks.load.errors import NothingMeasuredError
from benchmarks.load.peers.contest import Contest
from benchmarks.load.peers.findings import conclude
from benchmarks.load.peers.lineup import Lineup
from benchmarks.load.peers.peer import GATEWAY, Peer
from benchmarks.load.peers.tutorial import tutorial_peer
from benchmarks.load.settings import load_bench_settings
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.server import ServerSpec, running

SLOW = {"ttft_seconds": 0.05, "tpot_seconds": 0.01}


def server(name: str, home: Path, script: dict[str, float]) -> Peer:
    return Peer(known_server(name, home, script), ("completions",), adapters=False)


def contest_of(
    peers: tuple[Peer, ...], folder: Path, *, together: bool, said: list[str], most_seconds: float = 60.0
) -> Contest:
    settings = load_bench_settings(seconds=1.5, warmup_seconds=0.2, prompt_tokens="8", answer_tokens="4")
    return Contest(
        Lineup(peers, {}, {}),
        settings,
        together=together,
        most_seconds=most_seconds,
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
    assert any("per token in its HTTP process" in note for note in found["notes"])


def test_a_server_that_is_too_slow_is_left_out_with_its_pace_and_the_others_are_measured(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    slow = server("slow", tmp_path / "slow", {"ttft_seconds": 1.7, "tpot_seconds": 0.05})
    peers = (server(GATEWAY, tmp_path / "home", SLOW), slow)
    contest = contest_of(peers, tmp_path, together=True, said=said, most_seconds=1.0)
    measured = contest.run([parse_arrivals("closed:1")], 1, "slow")
    assert [turn.arm for turn in measured[0].turns] == ["gateway, closed:1"]
    assert contest.left_out["slow, closed:1"].startswith(
        "left out: an answer takes 2 s, and its runs may take 1 s"
    )
    found = conclude(measured, "slow", left_out=contest.left_out)
    assert any(note.startswith("slow, closed:1: left out") for note in found["notes"])
    assert {figure["arm"] for figure in found["arms"]} == {"gateway, closed:1"}
    with pytest.raises(NothingMeasuredError, match="slow, closed:1: left out"):
        contest_of((slow,), tmp_path, together=True, said=said, most_seconds=1.0).run(
            [parse_arrivals("closed:1")], 1, "slow"
        )


def test_what_was_measured_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    contest = contest_of((server(GATEWAY, tmp_path / "home", SLOW),), tmp_path, together=True, said=said)

    def interrupted_in_the_second_round(text: str) -> None:
        said.append(text)
        if text.endswith("round 2 of 3"):
            raise KeyboardInterrupt

    monkeypatch.setattr(contest, "_say", interrupted_in_the_second_round)
    measured = contest.run([parse_arrivals("closed:1"), parse_arrivals("closed:2")], 3, GATEWAY)
    assert [(turn.arm, turn.round) for heat in measured for turn in heat.turns] == [("gateway, closed:1", 0)]
    assert measured[0].turns[0].run.figures["http_cpu_ms_per_token"] > 0
    assert contest.interrupted
    found = conclude(measured, GATEWAY, stopped=contest.stopped)
    assert found["notes"][0] == "not all turns were taken: it was interrupted"


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
                *("--random-adapters", "2", "--api", "completions", "--concurrency", "2", "--waves", "2"),
                *("--seconds", "1", "--warmup-seconds", "0.2", "--answer-tokens", "4", "--out", str(out)),
            ],
        )
    assert done.exit_code == 0, done.output
    result = json.loads((out / "result.json").read_text())
    assert [run["name"] for run in result["runs"]] == [
        f"{name}, closed:2, round 1" for name in ("gateway", "gateway with 2 adapters", "other")
    ]
    waves = result["conclusion"]["waves"]["closed:2"]
    assert {name: len(taken) for name, taken in waves.items()} == {
        "gateway": 2,
        "gateway with 2 adapters": 2,
        "other": 2,
    }
    assert result["conclusion"]["notes"][0].startswith("gateway, closed:2: in 2 waves in turns with other")
    against = {figure["arm"]: figure["against"] for figure in result["conclusion"]["arms"]}
    assert against["gateway, closed:2"] == "other, closed:2"
    assert against["gateway with 2 adapters, closed:2"] == "gateway, closed:2"
    assert against["other, closed:2"] is None
    asked = result["runs"][1]["adapters"]
    assert set(asked) <= {"random-0", "random-1"}
    assert "other: it ran already" in (out / "report.md").read_text()


def test_what_cannot_begin_leaves_no_empty_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(bench_app, ["peers", "--base", "scripted", "--peer", "vllm", "--out", str(out)])
    assert done.exit_code != 0
    assert not out.exists()


def test_a_peer_that_does_not_come_up_ends_the_comparison_with_its_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no model')"]
    broken = ServerSpec("vllm", "the stock server", "", "/health", command)
    peers = (Peer(broken, ("completions",), adapters=False),)
    with pytest.raises(ServerStartError, match="the stock server ended with exit code 1"):
        contest_of(peers, tmp_path, together=True, said=[]).run([parse_arrivals("closed:1")], 1, "vllm")
