"""What swaps cost the requests on other adapters, on a gateway with the scripted engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from benchmarks.load.bench import Bench
from benchmarks.load.client.record import Record
from benchmarks.load.commands.app import bench_app
from benchmarks.load.errors import LoadOptionError, NothingMeasuredError
from benchmarks.load.figures.slo import PRESETS
from benchmarks.load.guests import guests
from benchmarks.load.own_gateway import OwnGateway, own_gateway
from benchmarks.load.report.swap_tables import changes_table, swap_lines
from benchmarks.load.rounds import Arm, Turn
from benchmarks.load.run import RunResult
from benchmarks.load.swap import AT_REST, SWAPPED, SWAPPING, pooled_p99_ratio, swap_conclusion
from benchmarks.load.verbs import Verb
from benchmarks.load.window import Window
from serve.client import GatewayClient

SLO = PRESETS["content"]
SHORT = ["--arrivals", "constant:20", "--seconds", "1.5", "--warmup-seconds", "0.3", "--answer-tokens", "3"]


def answered(number: int, adapter: str, ttft: float) -> Record:
    first = 10.0 + number / 100 + ttft
    return Record(
        number,
        first - ttft,
        first - ttft,
        adapter,
        2,
        outcome="ok",
        event_seconds=[first, first + 0.1],
        done_seconds=first + 0.1,
        completion_tokens=2,
    )


def turn(arm: str, number: int, ttft: float, *, verbs: tuple[Verb, ...] = (), broken: int = 0) -> Turn:
    records = [answered(place, "other", ttft + place / 10_000) for place in range(100)]
    records.append(answered(50, SWAPPED, 9.0))
    records += [Record(0, 5.0, 5.0, "other", 2, outcome="error", code="broken") for _ in range(broken)]
    run = RunResult(arm, records, Window(10.0, 20.0), {}, {}, None, [], [], "", swaps=list(verbs))
    return Turn(arm, number, run)


def conclude(*turns: Turn) -> dict[str, Any]:
    bench = cast("Bench", SimpleNamespace(target=SimpleNamespace(shown=dict)))
    arms = [Arm(name, bench, cast("Any", None)) for name in (AT_REST, SWAPPING)]
    return swap_conclusion(turns, arms, slo=SLO, every_seconds=1.0)


def test_the_adapter_that_is_replaced_counts_apart() -> None:
    found = conclude(turn(AT_REST, 0, 0.1), turn(SWAPPING, 0, 0.1))
    figures = {(one["arm"], one["metric"]): one for one in found["arms"]}
    assert figures[SWAPPING, "ttft_p99"]["value"]["median"] < 0.2
    assert figures[SWAPPING, "output_tok_s"]["value"]["median"] == pytest.approx(20.0)
    assert found["swap"]["answers"] == {AT_REST: 100, SWAPPING: 100}
    assert found["swap"]["requests"] == 202


def test_a_round_is_compared_with_itself() -> None:
    found = conclude(
        turn(AT_REST, 0, 0.1), turn(SWAPPING, 0, 0.2), turn(SWAPPING, 1, 0.3), turn(AT_REST, 1, 0.1)
    )
    ratio = next(
        one["ratio"] for one in found["arms"] if one["arm"] == SWAPPING and one["metric"] == "ttft_p50"
    )
    assert ratio["low"] == pytest.approx(1.95, abs=0.05)
    assert ratio["high"] == pytest.approx(2.9, abs=0.1)
    low, high = found["swap"]["p99_ratio_interval"]
    assert low <= found["swap"]["p99_ratio"] <= high


def test_the_interval_holds_what_rounds_have_in_common() -> None:
    alike = {number: [0.1 + number + place / 1000 for place in range(50)] for number in range(4)}
    ratio, low, high = pooled_p99_ratio(alike, alike)
    assert ratio == 1.0
    assert low <= 1.0 <= high
    assert high - low < 0.2  # rounds differ by 30 times as much, but both arms alike


def test_what_was_missed_is_said() -> None:
    swap = Verb(1.0, "replace", 0.4, SWAPPED, "v", {"check": 0.1, "probe": 0.2})
    calm = swap_lines(conclude(turn(AT_REST, 0, 0.1), turn(SWAPPING, 0, 0.1, verbs=(swap,))))
    assert all("met" in line for line in calm)
    failed = Verb(2.0, "replace", 0.1, SWAPPED, error="HTTP 422: no")
    hurt = swap_lines(
        conclude(
            turn(AT_REST, 0, 0.1, broken=2),
            turn(SWAPPING, 0, 0.2, verbs=(swap, failed)),
        )
    )
    assert "MISSED" in hurt[0]
    assert "2 swaps, 204 requests, 3 failures: **MISSED**" in hurt[1]
    assert any("2 times: error: broken" in line for line in hurt)


def test_a_run_without_another_adapters_answer_is_no_comparison() -> None:
    lone = turn(SWAPPING, 0, 0.1)
    lone.run.records = [answered(1, SWAPPED, 0.1)]
    with pytest.raises(NothingMeasuredError, match="another adapter"):
        conclude(turn(AT_REST, 0, 0.1), lone)


def test_phases_are_pooled_over_all_runs() -> None:
    verb = {"kind": "replace", "seconds": 0.4, "phase_seconds": {"probe": 0.2}, "error": None}
    failed = {"kind": "unload", "seconds": 0.1, "phase_seconds": {}, "error": "HTTP 409"}
    table = changes_table([{"swaps": [verb, failed]}, {"swaps": [verb]}, {}])
    assert table is not None
    assert table.rows == (
        ("replace", "2", "0", "400.0", "400.0", "400.0"),
        ("replace: probe", "2", "", "200.0", "200.0", "200.0"),
        ("unload", "1", "1", "-", "-", "-"),
    )
    assert "failed: HTTP 409" in table.notes
    assert changes_table([{"swaps": []}]) is None


def run(mode: str, *arguments: str) -> Any:
    return CliRunner().invoke(bench_app, [mode, *SHORT, *arguments])


def check(done: Any) -> None:
    """Exit code 1: this machine was too busy for the runs to count."""
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.exit_code in (0, 1), done.output


def test_without_a_server_it_starts_its_own(tmp_path: Path) -> None:
    given = ["--base", "scripted", "--adapters", "2", "--ranks", "8,16", "--rounds", "1", "--versions", "2"]
    given += ["--swap-every-seconds", "0.3", "--out", str(tmp_path)]
    # On a busy machine a swap takes as long as the shortest of these runs: only a longer one sees both versions.
    for seconds in ("1.5", "6", "24"):
        check(run("swap", *given, "--seconds", seconds))
        rest, swaps = json.loads((tmp_path / "result.json").read_text())["runs"]
        if len(swaps["swaps"]) >= 2 and len(swaps["adapters"][SWAPPED]["versions"]) == 2:
            break
    assert [rest["name"], swaps["name"]] == [f"{AT_REST}, round 1", f"{SWAPPING}, round 1"]
    assert rest["swaps"] == []
    assert {verb["name"] for verb in swaps["swaps"]} == {SWAPPED}
    assert [verb["error"] for verb in swaps["swaps"]] == [None] * len(swaps["swaps"])
    assert len(swaps["swaps"]) >= 2
    assert set(rest["adapters"]) == set(swaps["adapters"]) == {"adapter-0", "adapter-1", SWAPPED}
    assert len(swaps["adapters"][SWAPPED]["versions"]) == 2
    assert swaps["adapters"][SWAPPED]["cold_ttft_seconds"] is not None
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    for word in ("Changes of adapters", "replace: probe", "cold TTFT p50", "rank 8, 16"):
        assert word in page
        assert word in text
    assert "adapters change" in page


@pytest.fixture(scope="module")
def gateway() -> Iterator[OwnGateway]:
    with own_gateway("scripted", adapters=2) as up:
        yield up


@pytest.fixture
def given(gateway: OwnGateway) -> list[str]:
    root = str(gateway.folder / "home" / "adapters")
    return ["--url", gateway.url, "--adapter-root", root]


def state(gateway: OwnGateway) -> tuple[Mapping[str, str], set[str]]:
    with GatewayClient(gateway.url) as client:
        live = {one["name"]: one["live"] for one in client.list_adapters()["adapters"] if one["live"]}
    return live, {path.name for path in (gateway.folder / "home" / "adapters").iterdir()}


def test_a_server_that_runs_is_left_as_it_was(gateway: OwnGateway, given: list[str], tmp_path: Path) -> None:
    before = state(gateway)
    done = run("swap", *given, "--rounds", "1", "--versions", "2", "--out", str(tmp_path))
    check(done)
    assert "0 failures" in done.output
    assert state(gateway) == before


def test_adapters_change_during_any_run(gateway: OwnGateway, given: list[str], tmp_path: Path) -> None:
    before = state(gateway)
    churn = ["--churn", "load:60,replace:120,unload:120", "--churn-adapters", "2", "--churn-ranks", "8,16"]
    done = run("run", *given, *churn, "--seed", "3", "--out", str(tmp_path))
    check(done)
    assert state(gateway) == before
    (made,) = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert {verb["kind"] for verb in made["swaps"]} == {"load", "replace", "unload"}
    assert all(verb["name"].startswith("bench-churn-") for verb in made["swaps"])
    assert {"adapter-0", "adapter-1"} <= set(made["adapters"])
    assert made["figures"]["counts"]["failed"] == 0
    assert "Changes of adapters" in done.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--base", "tiny"], "--base"),
        (["--adapters", "2"], "--adapters"),
        (["--no-stream"], "--no-stream"),
        (["--adapter-root", "/nowhere/at/all"], "--adapter-root"),
        (["--adapter-base", "nowhere"], "--adapter-base"),
    ],
)
def test_what_makes_no_sense_is_refused(given: list[str], more: list[str], message: str) -> None:
    done = run("swap", *given, *more)
    assert isinstance(done.exception, LoadOptionError)
    assert message in str(done.exception)


def test_a_name_that_is_taken_is_left_alone(gateway: OwnGateway) -> None:
    before = state(gateway)
    with (
        pytest.raises(LoadOptionError, match="serves adapter-0 already"),
        guests(gateway.url, gateway.maker, ["new", "adapter-0"], sources=2, ranks=[8]),
    ):
        pass
    assert state(gateway) == before
