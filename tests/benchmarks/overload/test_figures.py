"""What counts as a good answer, what as a refusal, and the verdicts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.closed_loop.errors import PlanError
from benchmarks.overload.client import Order
from benchmarks.overload.figures import Limits, Stage, measure_stage
from benchmarks.overload.plan import Plan
from benchmarks.overload.record import Record, read_records, write_records
from benchmarks.overload.report import markdown, verdicts, warnings
from benchmarks.surroundings import Surroundings

LIMITS = Limits(ttft_seconds=1.0, e2e_seconds=3.0)


def answer(due: float, first: float, done: float) -> Record:
    return Record(due, due, 200, due + first, due + done, tokens=4)


def refusal(due: float, seconds: float) -> Record:
    return Record(due, due, 429, done_seconds=due + seconds, retry_after_seconds=1)


def stage_of(records: list[Record], name: str = "2x", steady: tuple[float, float] = (10.0, 20.0)) -> Stage:
    return measure_stage(
        records, LIMITS, name=name, offered_per_second=4.0, workers=0, steady=steady, foreign_cpu_share=0.0
    )


def test_an_answer_is_good_if_it_came_whole_and_in_time() -> None:
    cut_off = Record(11.0, 11.0, 200, 11.1, 11.5, error="cut off")
    stage = stage_of([answer(11, 0.5, 2), answer(11, 1.5, 2), answer(11, 0.5, 4), cut_off])
    assert (stage.answered, stage.good, stage.refused) == (3, 1, 0)
    assert (stage.goodput_per_second, stage.tokens_per_second) == (0.1, 1.2)
    assert stage.errors == {"cut off": 1}


def test_what_ended_outside_the_steady_part_does_not_count() -> None:
    stage = stage_of([answer(8, 0.5, 1), answer(9.5, 0.5, 1), answer(19.5, 0.5, 1)])
    assert (stage.sent, stage.answered) == (3, 1)


def test_latency_counts_from_when_a_request_was_due() -> None:
    late = Record(11.0, 12.0, 200, 12.5, 13.0, tokens=1)
    stage = stage_of([late])
    assert (stage.ttft_p50_seconds, stage.good, stage.lag_p99_seconds) == (1.5, 0, 1.0)


def test_refusals_are_timed_and_are_no_errors() -> None:
    stage = stage_of([refusal(11, 0.02), refusal(12, 0.04)])
    assert (stage.refused, stage.errors, stage.goodput_per_second) == (2, {}, 0.0)
    assert stage.refusal_p50_seconds == pytest.approx(0.03)
    assert stage.ttft_p99_seconds is None


def test_the_verdicts_are_about_the_peak_and_the_slowest_refusals() -> None:
    peak = stage_of([answer(11 + n / 10, 0.5, 1) for n in range(50)], name="1x")
    good = stage_of([answer(11 + n / 10, 0.5, 1) for n in range(46)] + [refusal(12, 0.05)])
    bad = stage_of([answer(11 + n / 10, 0.5, 1) for n in range(44)] + [refusal(12, 0.2)])
    assert [("met" in line) for line in verdicts([peak, good])] == [True, True]
    assert [("MISSED" in line) for line in verdicts([peak, bad])] == [True, True]
    assert verdicts([peak]) == []
    noisy = [replace(stage, foreign_cpu_share=0.3) for stage in (peak, good)]
    assert all("no verdict" in line for line in verdicts(noisy))
    assert "2 of 2 stages" in warnings(noisy)[0]
    assert warnings([peak]) == []


def test_the_entry_names_everything_that_was_measured() -> None:
    surroundings = Surroundings("CPU", "cpu", 2, 24.0, "Linux", "3.11", {}, None, 0.0)
    plan = Plan((8,), (2.0,), 10, 5, 10, 16, 32, LIMITS)
    text = markdown(
        [stage_of([answer(11, 0.5, 2), refusal(12, 0.01)])],
        4.5,
        plan,
        started=datetime(2026, 1, 2, tzinfo=UTC),
        command="python -m benchmarks.overload",
        surroundings=surroundings,
    )
    assert "capacity, 4.50 answers/s" in text
    assert "| 2x | 4.0 | 0.10 | 0.10 | 0 | 0.50, 0.50 | 2.00 | 1 | 10.0, 10.0 |" in text


def test_records_survive_the_file(tmp_path: Path) -> None:
    records = [answer(1, 0.5, 2), refusal(2, 0.1)]
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records


def test_due_times_are_a_poisson_process_of_the_rate_and_the_same_each_time() -> None:
    order = Order("http://x", 1000.0, 5.0, 0, 8, 4, "seed", 10.0)
    times = order.due_times()
    assert len(times) == pytest.approx(5000, abs=5 * 5000**0.5)
    assert times == sorted(times)
    assert times == Order.from_json(order.to_json()).due_times()


@pytest.mark.parametrize(
    "fields", [{"workers": ()}, {"factors": (0.0,)}, {"max_tokens": 0}, {"measure_seconds": 0.0}]
)
def test_what_cannot_be_measured_is_refused(fields: dict[str, object]) -> None:
    values: dict[str, object] = {
        "workers": (8,),
        "factors": (2.0,),
        "capacity_seconds": 10.0,
        "settle_seconds": 5.0,
        "measure_seconds": 10.0,
        "max_tokens": 16,
        "prompt_words": 32,
        "limits": LIMITS,
    }
    with pytest.raises(PlanError):
        Plan(**{**values, **fields}).check()  # type: ignore[arg-type]
