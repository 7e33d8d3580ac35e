"""Intervals of comparisons whose truth is known."""

from __future__ import annotations

import random

import pytest

from benchmarks.load.client.record import Record
from benchmarks.load.peers.confidence import added_ttft_interval, throughput_interval
from benchmarks.load.rounds import Turn
from benchmarks.load.run import RunResult
from benchmarks.load.window import Window

WINDOW = Window(1.0, 9.0)


def turn(arm: str, number: int, *, gap: float, ttft: float = 0.1, noise: float = 0.0) -> Turn:
    """A closed loop of one worker whose answers have 8 tokens; `noise` is the spread of their times."""
    drawn = random.Random(f"{arm}/{number}")
    records: list[Record] = []
    now = 0.0
    while now < WINDOW.end + 1:
        sent = now
        now += ttft + drawn.uniform(-noise, noise)
        record = Record(len(records), sent, sent, None, 8, "ok", completion_tokens=8)
        for _ in range(8):
            record.event_seconds.append(now)
            now += gap * (1 + drawn.uniform(-noise, noise))
        record.done_seconds = now
        records.append(record)
    return Turn(arm, number, RunResult("any", records, WINDOW, {}, {}, None, [], [], ""))


def turns(*, ours: float, theirs: float, rounds: int = 3, more_ttft: float = 0.0) -> list[Turn]:
    return [
        one
        for number in range(rounds)
        for one in (
            turn("ours", number, gap=ours, ttft=0.1 + more_ttft, noise=0.02),
            turn("theirs", number, gap=theirs, noise=0.02),
        )
    ]


def test_the_interval_of_the_throughput_holds_the_true_ratio_and_is_narrow() -> None:
    found = throughput_interval(turns(ours=0.022, theirs=0.02), "ours", "theirs")
    assert found is not None
    assert found.holds((0.1 + 8 * 0.02) / (0.1 + 8 * 0.022))
    assert found.high - found.low < 0.06


def test_equal_arms_are_not_told_apart() -> None:
    equal = turns(ours=0.02, theirs=0.02)
    throughput, added = (find(equal, "ours", "theirs") for find in (throughput_interval, added_ttft_interval))
    assert throughput is not None
    assert added is not None
    assert throughput.holds(1.0)
    assert added.holds(0.0)


def test_the_interval_of_the_added_ttft_holds_what_was_added() -> None:
    found = added_ttft_interval(turns(ours=0.02, theirs=0.02, more_ttft=0.03), "ours", "theirs")
    assert found is not None
    assert found.low > 0.0
    assert found.holds(0.03)


@pytest.mark.parametrize("find", [throughput_interval, added_ttft_interval])
def test_without_a_common_round_nothing_is_said(find: object) -> None:
    apart = [turn("ours", 0, gap=0.02), turn("theirs", 1, gap=0.02)]
    assert callable(find)
    assert find(apart, "ours", "theirs") is None
