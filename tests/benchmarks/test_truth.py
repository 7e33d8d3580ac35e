"""What is called true, and what is called within 2 % of it; live: tests/benchmarks/load/test_run.py."""

from __future__ import annotations

import pytest

from benchmarks.load.client.record import Record
from benchmarks.load.comparison import METRICS
from benchmarks.load.figures.figures import run_figures
from benchmarks.load.figures.slo import parse_slo
from benchmarks.load.window import Window
from benchmarks.load.workload.arrivals import parse_arrivals
from benchmarks.truth import (
    E2E_SECONDS,
    PLACES,
    TOKENS,
    TPOT_SECONDS,
    TTFT_SECONDS,
    Case,
    Reading,
    cases,
    readings,
)


def answered(due: float, waited: float = 0.0) -> Record:
    times = [due + waited + TTFT_SECONDS + place * TPOT_SECONDS for place in range(TOKENS)]
    return Record(
        0,
        due,
        due,
        None,
        TOKENS,
        outcome="ok",
        event_seconds=times,
        done_seconds=times[-1],
        completion_tokens=TOKENS,
    )


def perfect(case: Case) -> list[Record]:
    """What a server that keeps its script to the microsecond would have answered."""
    end = case.warmup_seconds + case.seconds + E2E_SECONDS
    arrivals = parse_arrivals(case.arrivals)
    if arrivals.closed:
        turns = range(int(end / E2E_SECONDS) + 1)
        return [answered(turn * E2E_SECONDS) for turn in turns for _ in range(arrivals.workers)]
    records: dict[float, int] = {}
    for due in arrivals.times(end, seed=1):
        records[due] = records.get(due, 0) + 1
    return [
        answered(due, waited=0.0 if place < PLACES else E2E_SECONDS)
        for due, count in records.items()
        for place in range(count)
    ]


@pytest.mark.parametrize("rounds", [2, 5, 15])
def test_a_server_that_keeps_its_script_brings_the_truth(rounds: int) -> None:
    """Else the truth would be wrong, or the window would cut through what it measures."""
    for case in cases(rounds):
        window = Window(case.warmup_seconds, case.warmup_seconds + case.seconds)
        found = readings(case, run_figures(perfect(case), window, parse_slo(case.slo)))
        assert set(case.truth) <= set(METRICS)
        assert [reading for reading in found if reading.error is None or abs(reading.error) > 0.001] == []


@pytest.mark.parametrize(
    ("truth", "measured", "good"),
    [(10.0, 10.19, True), (10.0, 9.79, False), (0.0, 0.0, True), (0.0, 0.5, False), (1.0, None, False)],
)
def test_within_two_percent_is_good(truth: float, measured: float | None, good: bool) -> None:
    assert Reading("case", "goodput", truth, measured).good is good
