"""The stopwatch of the step profile, its report, and its command line."""

from __future__ import annotations

import time

import pytest
from typer.testing import CliRunner

from benchmarks.step_profile.__main__ import app
from benchmarks.step_profile.report import markdown
from benchmarks.step_profile.stopwatch import Stopwatch
from benchmarks.step_profile.task import (
    SHORTER,
    VLLM,
    Breakdown,
    ProfileResult,
    ServedResult,
    ServedTimes,
    StepTimes,
)
from benchmarks.step_profile.timers import ATTENTION, PRODUCTS


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_time_in_an_inner_call_counts_for_its_own_label_alone():
    watch = Stopwatch()
    inner = watch.timed("inner", lambda: busy(0.02))

    def work() -> None:
        busy(0.01)
        inner()
        inner()

    started = time.thread_time()
    watch.timed("outer", work)()
    whole = time.thread_time() - started
    assert watch.calls == {"outer": 1, "inner": 2}
    assert watch.thread_seconds["inner"] == pytest.approx(0.04, rel=0.2)
    assert watch.thread_seconds["outer"] == pytest.approx(0.01, rel=0.5)
    assert sum(watch.thread_seconds.values()) == pytest.approx(whole, rel=0.05)
    assert sum(watch.wall_seconds.values()) >= sum(watch.thread_seconds.values()) * 0.99


def test_a_call_that_raises_is_counted_and_leaves_nothing_open():
    watch = Stopwatch()

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        watch.timed("outer", watch.timed("inner", fail))()
    watch.clear()
    watch.timed("after", busy)(0.001)
    assert set(watch.calls) == {"after"}


def test_the_report_shows_medians_ratios_of_the_same_round_and_shares():
    steps = [
        StepTimes(
            variant=variant,
            concurrency=2,
            round=number,
            num_steps=9,
            wall_seconds=seconds,
            thread_seconds=seconds / 2,
        )
        for variant, walls in ((VLLM, (0.040, 0.060, 0.050)), (SHORTER, (0.020, 0.040, 0.025)))
        for number, seconds in enumerate(walls)
    ]
    breakdowns = [
        Breakdown(
            variant=variant,
            concurrency=2,
            round=0,
            wall_seconds={PRODUCTS: 0.015, ATTENTION: 0.005},
            thread_seconds={},
            calls={},
        )
        for variant in (VLLM, SHORTER)
    ]
    result = ProfileResult(
        title="tiny",
        dtype="float32",
        num_threads=1,
        kernels={},
        shortened={},
        steps=steps,
        breakdowns=breakdowns,
    )
    served = ServedResult(
        title="tiny",
        times=[
            ServedTimes(
                concurrency=2, round=0, num_tokens=9, gap_seconds=0.027, front_cpu_seconds_per_token=0.001
            )
        ],
    )
    page = markdown([result], [served], "somewhere")
    assert "| 2 | 27.00 (27.00 to 27.00) | 2.00 | 1.00 (1.00 to 1.00) |" in page
    assert (
        f"| 2 | {SHORTER} | 25.00 (20.00 to 40.00) | 12.50 (10.00 to 20.00) | 80.0 | 2.00 (1.50 to 2.00) |"
        in page
    )
    assert f"| {PRODUCTS} | 15.00 (75 %) | 15.00 (75 %) |" in page
    assert "| sum | 20.00 | 20.00 |" in page
    assert "| the same steps without timers | 50.00 | 25.00 |" in page


@pytest.mark.parametrize("concurrency", ["0", "few", "1;8"])
def test_what_is_no_list_of_numbers_is_wrong_usage(concurrency):
    found = CliRunner().invoke(app, ["--concurrency", concurrency])
    assert found.exit_code == 2
    assert "is not a list of numbers" in found.output
