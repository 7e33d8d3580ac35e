"""From the runs of the speed part to its cells, with figures that can be worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.load.client.order import Outcome
from benchmarks.load.client.record import Record
from benchmarks.load.client.sending import Sent
from benchmarks.load.figures.slo import PRESETS
from benchmarks.load.rounds import Turn
from benchmarks.load.run import measure
from benchmarks.load.window import Window
from benchmarks.load.workload.schedule import Schedule
from benchmarks.quantisation.figures import SpeedCell
from benchmarks.quantisation.served import servers_of
from benchmarks.quantisation.speed import arm_name, figures_of
from tests.benchmarks.quantisation.example_report import W4, form
from tests.benchmarks.quantisation.test_plan import plan

WINDOW = Window(0.0, 10.0)
SERVED = servers_of(form("merged", None, 512), [form("w4", W4, 128)], ("float32",))
FAST = f"{W4}/float32"


def turn(
    served: str, number: int, ttft: float, *, tokens: int = 4, failed: int = 0, busy: float | None = 0.01
) -> Turn:
    """One answer, and its last token a second after the first; then requests that fail."""
    times = [ttft + place / (tokens - 1) for place in range(tokens)]
    records = [
        Record(
            0,
            0.0,
            0.0,
            None,
            tokens,
            outcome="ok",
            event_seconds=times,
            done_seconds=times[-1],
            prompt_tokens=32,
            completion_tokens=tokens,
        ),
        *(
            Record(1 + place, 2.0, 2.0, None, tokens, outcome="error", code="gone", done_seconds=2.1)
            for place in range(failed)
        ),
    ]
    sent = Sent(records, [Outcome(len(records), 0, 0.1, 10.0, WINDOW.start, WINDOW.end)], WINDOW)
    run = measure(served, sent, Schedule((), 1, 1), PRESETS["content"], foreign_cpu_share=busy)
    return Turn(arm_name(served, 1), number, run)


def cells(tmp_path: Path, turns: list[Turn]) -> tuple[SpeedCell, SpeedCell]:
    wanted = plan(tmp_path, concurrency=(1,), rounds=3)
    found = figures_of(turns, SERVED, wanted, started=datetime.now(UTC), together=True)
    assert found.prompt_tokens == (32,)
    first, second = found.cells
    return first, second


def test_ratios_are_of_pairs_in_the_same_round_with_both_ends(tmp_path):
    turns = [turn("float32", number, 0.1) for number in range(3)]
    turns += [turn(FAST, number, ttft, tokens=8) for number, ttft in enumerate((0.101, 0.103, 0.1))]
    baseline, fast = cells(tmp_path, turns)
    assert (baseline.throughput_ratio, baseline.ttft_ratio) == (None, None)
    assert fast.throughput_ratio is not None
    assert fast.throughput_ratio.value == pytest.approx(2.0)
    assert fast.ttft_ratio is not None
    assert (fast.ttft_ratio.value, fast.ttft_ratio.low, fast.ttft_ratio.high) == pytest.approx(
        (1.01, 1.0, 1.03)
    )
    assert fast.tpot_p50_seconds == pytest.approx(1 / 7)
    assert fast.output_tok_s is not None
    assert fast.output_tok_s.value == pytest.approx(0.8)


def test_a_round_that_one_server_had_alone_has_no_ratio(tmp_path):
    _, fast = cells(tmp_path, [turn("float32", 0, 0.1), turn(FAST, 0, 0.2), turn(FAST, 1, 0.9)])
    assert fast.ttft_ratio is not None
    assert fast.ttft_ratio.value == pytest.approx(2.0)
    assert fast.ttft_ratio.count == 1


def test_a_cell_pools_the_requests_of_all_rounds(tmp_path):
    _, pooled = cells(
        tmp_path, [turn("float32", 0, 0.1), *(turn(FAST, n, t) for n, t in enumerate((0.1, 0.2, 0.6)))]
    )
    assert pooled.ttft_p50_seconds == pytest.approx(0.2)
    assert pooled.ttft_p99_seconds == pytest.approx(0.592)
    assert (pooled.attempted, pooled.answered, pooled.blocks) == (3, 3, 3)


def test_what_failed_and_what_disturbed_is_said(tmp_path):
    turns = [turn("float32", 0, 0.1, busy=None), turn(FAST, 0, 0.1, failed=2, busy=0.4)]
    baseline, fast = cells(tmp_path, turns)
    assert (baseline.noisy_blocks, fast.noisy_blocks) == (0, 1)
    assert (fast.attempted, fast.answered) == (3, 1)
    assert fast.ttft_p50_seconds == pytest.approx(0.1)
    found = figures_of(turns, SERVED, plan(tmp_path), started=datetime.now(UTC), together=True)
    assert len(found.warnings) == 2
    assert "2 of 3 requests failed" in found.warnings[0]
    assert "1 of 2 blocks" in found.warnings[1]
