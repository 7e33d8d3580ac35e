"""What is said of figures that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from benchmarks.load.bench import Bench
from benchmarks.load.peers.contest import Heat, Way
from benchmarks.load.peers.findings import adapter_lines, cpu_lines, gateway_lines
from benchmarks.load.peers.peer import GATEWAY, Peer
from benchmarks.load.rounds import Arm, Turn
from benchmarks.load.run import RunResult
from benchmarks.load.window import Window
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.server import ServerSpec

NO_BENCH = cast(Bench, None)  # nothing is run


def heat(rates: dict[tuple[str, bool], list[tuple[float, float]]], *, foreign: float = 0.0) -> Heat:
    """Turns by (peer, asked for adapters): tok/s and TTFT p50 in seconds of each round."""
    load = parse_arrivals("closed:4")
    arms, ways, turns = [], [], []
    for (name, adapters), rounds in rates.items():
        peer = Peer(ServerSpec(name, name, "", "/"), ("completions",), adapters=True)
        arm = f"{name} with adapters" if adapters else name
        arms.append(Arm(arm, NO_BENCH, load))
        ways.append(Way(peer, "completions", adapters, NO_BENCH))
        turns += [Turn(arm, number, run_of(*figures, foreign)) for number, figures in enumerate(rounds)]
    return Heat(load, arms, ways, turns)


def run_of(rate: float, ttft: float, foreign: float) -> RunResult:
    figures: dict[str, Any] = {
        "output_tok_s": rate,
        "ttft_seconds": {"p50": ttft},
        "http_cpu_ms_per_token": 1.5,
    }
    return RunResult(
        "any", [], Window(0.0, 1.0), figures, {}, None, [], [], "", client={"foreign_cpu_share": foreign}
    )


SAME = ("vllm-mended", False)
OURS = (GATEWAY, False)


def test_the_gateways_targets_are_judged_by_the_median_of_pairs() -> None:
    one = heat({OURS: [(99.0, 0.101), (95.0, 0.1), (110.0, 0.2)], SAME: [(100.0, 0.1)] * 3})
    assert gateway_lines(one) == [
        "gateway: throughput 0.990 (0.950 to 1.100) of the same engine's, at least 0.98 wanted: met; "
        "TTFT p50 +1.0 (+0.0 to +100.0) ms more, at most 2 wanted: met"
    ]


@pytest.mark.parametrize(("foreign", "word"), [(0.0, "MISSED"), (0.5, "undecided, the machine was busy")])
def test_a_missed_target_is_said_unless_the_machine_was_busy(foreign: float, word: str) -> None:
    (line,) = gateway_lines(heat({OURS: [(90.0, 0.2)], SAME: [(100.0, 0.1)]}, foreign=foreign))
    assert line.count(f"wanted: {word}") == 2


def test_targets_are_of_the_same_engine_alone() -> None:
    assert gateway_lines(heat({OURS: [(90.0, 0.2)], ("vllm", False): [(100.0, 0.1)]})) == []


def test_adapters_on_ours_are_set_against_adapters_on_the_baseline() -> None:
    one = heat(
        {
            OURS: [(100.0, 0.1)],
            (GATEWAY, True): [(90.0, 0.1)],
            ("vllm", False): [(100.0, 0.1)],
            ("vllm", True): [(40.0, 0.1)],
        }
    )
    assert adapter_lines(one, "vllm") == [
        "gateway with adapters: throughput 2.250 of that of vllm with adapters"
    ]
    assert adapter_lines(heat({OURS: [(1.0, 0.1)], ("tutorial", False): [(1.0, 0.1)]}), "tutorial") == []


def test_the_http_process_is_told_where_it_is_known() -> None:
    one = heat({OURS: [(100.0, 0.1)], SAME: [(100.0, 0.1)]})
    one.turns[1].run.figures["http_cpu_ms_per_token"] = None
    assert cpu_lines(one) == ["gateway: 1.50 ms of a processor per token in its HTTP process"]


def test_a_server_of_one_process_is_not_taken_for_a_cheap_or_dear_front_end() -> None:
    one = heat({("tutorial", False): [(10.0, 0.1)]})
    way = one.ways[0]
    alone = replace(one, ways=[replace(way, peer=replace(way.peer, one_process=True))])
    assert "in the one process that answers and computes" in cpu_lines(alone)[0]
