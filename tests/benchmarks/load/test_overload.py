"""Multiples of a capacity that is looked for first, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from typer.testing import CliRunner

from benchmarks.load.commands.app import bench_app
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.overload import beyond_capacity, closed_loops, parse_factors
from benchmarks.load.report.overload_tables import overload_lines, overload_table
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.load.workload.prompt_source import PromptSource

if TYPE_CHECKING:
    from benchmarks.load.bench import Bench

CAPACITY = 10.0


@dataclass(frozen=True)
class FakeBench:
    """A server that answers `CAPACITY` requests a second from 16 workers on, and rejects what is more."""

    said: list[tuple[str, str, int, str]]
    arrivals: str = "gamma:1,2"
    foreign: float = 0.0
    prompts: PromptSource = field(default_factory=lambda: PromptSource(seed=1, overhead_tokens=0))
    settings: Any = field(default_factory=lambda: SimpleNamespace(seed=7))

    @property
    def load(self) -> Any:
        return SimpleNamespace(arrivals=parse_arrivals(self.arrivals))

    def run(self, name: str, arrivals: Any, *, seed: int, progress: Any) -> Any:
        del progress
        self.said.append((name, arrivals.text, seed, self.prompts.salt))
        offered = CAPACITY * min(1.0, arrivals.workers / 16) if arrivals.closed else arrivals.values[0]
        rejected = max(0.0, offered - CAPACITY)
        figures = {
            "offered_req_s": offered,
            "req_s": round(min(offered, CAPACITY))
            - 1.0,  # whole batches of answers: less than the tokens say
            "output_tok_s": 8.0 * min(offered, CAPACITY),
            "completion_tokens": {"mean": 8.0},
            "goodput_req_s": min(offered, CAPACITY) - 0.05 * rejected,
            "counts": {"rejected": int(rejected)},
            "rejection_seconds": {"p50": 0.01, "p99": 0.02 + rejected / 1000} if rejected else None,
            "retry_after_seconds": {"p50": 2.0} if rejected else None,
            "ttft_seconds": {"p50": 0.1, "p99": 0.2},
        }
        return SimpleNamespace(name=name, figures=figures, client={"foreign_cpu_share": self.foreign})


def measure(bench: FakeBench, factors: str = "0.5,1,2") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    runs, conclusion = beyond_capacity(
        cast("Bench", bench),
        closed_loops("8,16", bench.load.arrivals),
        parse_factors(factors),
        progress=lambda _: None,
        say=lambda _: None,
    )
    return [{"name": run.name, "figures": run.figures} for run in runs], conclusion


def test_the_best_closed_loop_is_the_capacity_and_every_multiple_of_it_is_offered() -> None:
    said: list[tuple[str, str, int, str]] = []
    _, conclusion = measure(FakeBench(said))
    assert conclusion["capacity_req_s"] == CAPACITY
    assert [(name, arrivals, seed) for name, arrivals, seed, _ in said] == [
        ("closed:8", "closed:8", 7),
        ("closed:16", "closed:16", 8),
        ("0.5x", "gamma:5,2", 7),
        ("1x", "gamma:10,2", 8),
        ("2x", "gamma:20,2", 9),
    ]
    assert said[0][3] != said[2][3]  # no text of the closed loops is sent again


def test_goodput_is_a_share_of_its_peak_and_rejections_have_their_latency() -> None:
    runs, conclusion = measure(FakeBench([]))
    assert [step["goodput_share"] for step in conclusion["steps"]] == [0.5, 1.0, 0.95]
    table = overload_table(conclusion, runs)
    assert table.rows[-1] == ("2x", "20.00", "9.50", "95.0%", "200.0", "10", "10.0", "30.0", "2")
    assert table.rows[0][-3:] == ("-", "-", "-")
    assert [("95.0%" in line, "met" in line) for line in overload_lines(conclusion)] == [
        (True, True),
        (False, True),
    ]


def test_targets_that_were_missed_are_said_to_be_and_a_disturbed_machine_gives_no_verdict() -> None:
    _, conclusion = measure(FakeBench([]))
    step = conclusion["steps"][-1]
    missed = {**conclusion, "steps": [{**step, "goodput_share": 0.89, "rejection_p99_seconds": 0.1}]}
    assert all("missed" in line for line in overload_lines(missed))
    _, disturbed = measure(replace(FakeBench([]), foreign=0.2))
    assert len(overload_lines(disturbed)) == 2
    assert all("no verdict" in line for line in overload_lines(disturbed))


def test_without_twice_the_capacity_and_without_rejections_there_is_nothing_to_say() -> None:
    _, conclusion = measure(FakeBench([]), "0.5,1")
    assert overload_lines(conclusion) == []


def test_the_closed_loop_of_the_load_is_the_one_that_is_measured() -> None:
    assert [loop.text for loop in closed_loops(None, parse_arrivals("closed:5"))] == ["closed:5"]
    assert [loop.text for loop in closed_loops(None, parse_arrivals("poisson:5"))] == ["closed:32"]


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1000", "nan"])
def test_multiples_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(LoadOptionError, match="--times-capacity"):
        parse_factors(text)


@pytest.mark.parametrize("text", ["", "x", "1.5"])
def test_closed_loops_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(LoadOptionError, match="--capacity-workers"):
        closed_loops(text, parse_arrivals("closed:1"))


def test_rates_and_multiples_are_not_asked_for_together() -> None:
    done = CliRunner().invoke(bench_app, ["sweep", "--rates", "1", "--times-capacity", "1"])
    assert isinstance(done.exception, LoadOptionError)
