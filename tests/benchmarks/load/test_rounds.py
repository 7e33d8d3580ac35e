from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from benchmarks.load.report.arm_tables import arm_tables
from benchmarks.load.rounds import Arm, Turn, arm_figures, conclusion_of_turns, take_turns
from benchmarks.load.workload.arrivals import parse_arrivals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.load.bench import Bench
    from benchmarks.load.run import RunResult

CLOSED = parse_arrivals("closed:2")


class FakeBench:
    """Notes what it is asked for; each run is a little faster than the one before."""

    def __init__(self, said: list[tuple[str, int]], tokens_per_second: float) -> None:
        self.settings = SimpleNamespace(seed=7)
        self.target = SimpleNamespace(shown=lambda: {"base": "fake"})
        self._said, self._tokens_per_second = said, tokens_per_second

    def run(self, name: str, arrivals: Any, *, seed: int, progress: Any) -> RunResult:
        del arrivals, progress
        self._said.append((name, seed))
        self._tokens_per_second += 1.0
        figures = {"output_tok_s": self._tokens_per_second, "ttft_seconds": {"p50": 0.1}}
        return cast("RunResult", SimpleNamespace(figures=figures))


def arm(name: str, said: list[tuple[str, int]], tokens_per_second: float, **more: Any) -> Arm:
    return Arm(name, cast("Bench", FakeBench(said, tokens_per_second)), CLOSED, **more)


def turns_of(arms: list[Arm], rounds: int) -> list[Turn]:
    return take_turns(arms, rounds=rounds, progress=lambda _: None, say=lambda _: None)


def test_another_arm_is_first_in_each_round_and_all_have_its_seed() -> None:
    said: list[tuple[str, int]] = []
    turns_of([arm("a", said, 1.0), arm("b", said, 1.0)], 2)
    assert said == [("a, round 1", 7), ("b, round 1", 7), ("b, round 2", 8), ("a, round 2", 8)]


def test_what_surrounds_an_arm_is_there_during_its_runs_alone() -> None:
    seen: list[str] = []

    @contextmanager
    def swapping() -> Iterator[None]:
        seen.append("begin")
        yield
        seen.append("end")

    said: list[tuple[str, int]] = []
    turns_of([arm("quiet", said, 1.0), arm("swaps", said, 1.0, around=swapping)], 2)
    assert seen == ["begin", "end", "begin", "end"]


def test_ratios_are_of_runs_in_the_same_round() -> None:
    said: list[tuple[str, int]] = []
    arms = [arm("base", said, 9.0), arm("four", said, 4.0)]
    figures = {(f.arm, f.metric): f for f in arm_figures(turns_of(arms, 3), "base")}
    ratio = figures["four", "output_tok_s"].ratio
    assert ratio is not None
    assert ratio.median == pytest.approx(6 / 11)
    assert (ratio.low, ratio.high) == pytest.approx((5 / 10, 7 / 12))
    assert figures["base", "output_tok_s"].ratio is None
    assert figures["base", "output_tok_s"].value.median == 11.0
    assert ("base", "e2e_p50") not in figures


def test_the_tables_show_every_arm_and_the_ratios_to_the_baseline() -> None:
    said: list[tuple[str, int]] = []
    arms = [arm("base", said, 9.0), arm("four", said, 4.0)]
    conclusion = conclusion_of_turns(turns_of(arms, 3), arms, "base")
    assert conclusion["targets"] == {"base": {"base": "fake"}, "four": {"base": "fake"}}
    values, ratios = arm_tables(conclusion)
    assert [row[0] for row in values.rows] == ["base", "four"]
    assert values.rows[0][1] == "11 (10 to 12)"
    assert [row[0] for row in ratios.rows] == ["four"]
    assert ratios.rows[0][1] == "0.5455 (0.5 to 0.5833)"
    assert "3 rounds" in values.notes[0]


def test_an_arm_can_be_set_against_another_than_the_baseline() -> None:
    said: list[tuple[str, int]] = []
    arms = [
        arm("base alone", said, 9.0, against="base alone"),
        arm("four alone", said, 4.0, against="base alone"),
        arm("base of eight", said, 79.0, against="base of eight"),
        arm("four of eight", said, 19.0, against="base of eight"),
    ]
    conclusion = conclusion_of_turns(turns_of(arms, 1), arms, "base alone")
    _, ratios = arm_tables(conclusion)
    assert [row[:3] for row in ratios.rows] == [
        ("four alone", "base alone", "0.5"),
        ("four of eight", "base of eight", "0.25"),
    ]


def test_one_of_the_rounds_can_be_run_alone() -> None:
    said: list[tuple[str, int]] = []
    arms = [arm("a", said, 1.0), arm("b", said, 1.0)]
    turns = take_turns(arms, rounds=3, only=1, progress=lambda _: None, say=lambda _: None)
    assert said == [("b, round 2", 8), ("a, round 2", 8)]
    assert {turn.round for turn in turns} == {1}


def test_what_is_known_of_quality_stands_beside_the_figures_and_what_is_not_is_said() -> None:
    said: list[tuple[str, int]] = []
    arms = [arm("base", said, 9.0), arm("int8", said, 4.0)]
    conclusion = conclusion_of_turns(turns_of(arms, 1), arms, "base")
    values, ratios = arm_tables({**conclusion, "quality": {"base": "the original"}})
    assert [row[-1] for row in values.rows] == ["the original", "not measured"]
    assert ratios.headings[-1] == "quality"
    assert ratios.rows[0][-1] == "not measured"
