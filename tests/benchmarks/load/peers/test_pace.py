"""Runs of slow servers: whole answers, within a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from benchmarks.load.bench import Bench
from benchmarks.load.client.record import Record
from benchmarks.load.peers.pace import WarmUp, paced
from benchmarks.load.run import RunResult
from benchmarks.load.settings import load_bench_settings
from benchmarks.load.workload.arrivals import parse_arrivals


@dataclass(frozen=True)
class FakeBench:
    settings: Any
    tail_seconds: float | None = None


BENCH = cast(Bench, FakeBench(load_bench_settings(seconds=10.0, warmup_seconds=1.0)))
CLOSED = parse_arrivals("closed:2")


def runs_of(answer_seconds: float, most_seconds: float) -> list[float | None]:
    """(window, warm-up, tail); nothing: it has no runs."""
    found = paced(BENCH, CLOSED, WarmUp(answer_seconds, 5.0), most_seconds)
    if found is None:
        return []
    return [found.settings.seconds, found.settings.warmup_seconds, found.tail_seconds]


def test_a_server_that_answers_often_enough_has_the_runs_that_were_asked_for() -> None:
    assert paced(BENCH, CLOSED, WarmUp(3.3, 5.0), 120.0) is BENCH
    assert paced(BENCH, parse_arrivals("constant:2"), WarmUp(30.0, 5.0), 120.0) is BENCH


@pytest.mark.parametrize(
    ("answer_seconds", "seconds"), [(4.0, 12.0), (30.0, 90.0), (50.0, 100.0), (79.0, 79.0)]
)
def test_a_slow_one_has_up_to_three_whole_answers_from_the_first_moment_on(
    answer_seconds: float, seconds: float
) -> None:
    assert runs_of(answer_seconds, 120.0) == pytest.approx([seconds, 0.0, 0.3 * answer_seconds])


def test_one_whose_answer_takes_longer_than_a_run_may_has_none_and_says_its_pace() -> None:
    assert runs_of(121.0, 120.0) == []
    assert runs_of(9.0, 1.0) == pytest.approx([9.0, 0.0, 2.7])  # what was asked for is allowed
    assert "an answer takes 121 s" in WarmUp(121.0, 5.25).too_slow(120.0)
    assert "5.2 tok/s" in WarmUp(121.0, 5.25).too_slow(120.0)


def test_a_warm_up_tells_the_slowest_answer_and_tokens_per_second_until_the_last() -> None:
    records = [
        Record(n, 0.0, 0.0, None, 8, outcome="ok", done_seconds=end, completion_tokens=8)
        for n, end in enumerate((2.0, 4.0))
    ]
    records.append(Record(2, 2.0, 2.0, None, 8))  # nobody waited for it
    run = cast(RunResult, FakeRun(records, {"e2e_seconds": {"max": 4.0}}))
    assert WarmUp.of(run) == WarmUp(4.0, 4.0)


@dataclass(frozen=True)
class FakeRun:
    records: list[Record]
    figures: dict[str, Any]
