"""The figures of swap_impact and adapter_churn from what was recorded."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from benchmarks.adapter_churn.plan import Plan as ChurnPlan
from benchmarks.adapter_churn.processes import Look, growth
from benchmarks.adapter_churn.report import Outcome
from benchmarks.adapter_churn.report import markdown as churn_markdown
from benchmarks.adapter_churn.verbs import Verb
from benchmarks.closed_loop.errors import NoAnswerError, PlanError
from benchmarks.steady.record import Record
from benchmarks.surroundings import Surroundings
from benchmarks.swap_impact.block import Block, make_block, phase_spreads, pooled_p99_ratio, ratios
from benchmarks.swap_impact.plan import SWAPPED, Plan
from benchmarks.swap_impact.report import markdown, verdicts
from benchmarks.swap_impact.swaps import Swap

HERE = Surroundings("a processor", "cpu", 2, 24.0, "Linux", "3.11", {}, "abc", 0.1)
PLAN = Plan(
    pairs=2,
    block_seconds=10,
    concurrency=2,
    swapped_concurrency=1,
    bystanders=2,
    versions=2,
    interval_seconds=1,
    max_tokens=4,
    prompt_words=4,
    rank=4,
)


def record(adapter: str, sent: float, ttft: float, *, error: str | None = None) -> Record:
    first = sent + ttft
    return Record(0, adapter, sent, f"{adapter}@1", first, first + 0.3, first + 0.3, 4, error)


def block(pair: int, swapping: bool, ttft: float) -> Block:
    records = [record("bystander-0", 5 + place / 100, ttft + place / 10_000) for place in range(100)]
    records.append(record(SWAPPED, 6, 99.0))
    records.append(record("bystander-0", 1, 50.0))  # in the warm-up
    swaps = [Swap(1.0, 0.4, {"check": 0.1, "probe": 0.2})] if swapping else []
    return make_block(
        records,
        swaps,
        pair=pair,
        swapping=swapping,
        warm_up_seconds=5,
        seconds=10,
        foreign_cpu_share=0.0,
    )


def test_only_other_adapters_after_the_warm_up_count() -> None:
    made = block(0, True, 0.1)
    assert len(made.ttft_seconds) == 100
    assert max(made.ttft_seconds) < 0.2
    assert made.swapped_ttft_seconds == [pytest.approx(99.0)]
    assert made.figure("tok/s") == 40.0
    assert made.figure("TPOT p50") == pytest.approx(0.1)


def test_a_pair_is_compared_with_itself() -> None:
    blocks = [block(0, False, 0.1), block(0, True, 0.2), block(1, True, 0.3), block(1, False, 0.1)]
    found = ratios(blocks, "TTFT p50")
    assert found.low == pytest.approx(1.95, abs=0.05)
    assert found.high == pytest.approx(2.9, abs=0.1)
    whole, low, high = pooled_p99_ratio(blocks)
    assert low <= whole <= high
    assert phase_spreads(blocks)["probe"] == (0.2, 0.2, 0.2)


def test_the_report_says_what_was_missed() -> None:
    calm = [block(0, False, 0.1), block(0, True, 0.1)]
    assert all("met" in line for line in verdicts(calm))
    hurt = [block(0, False, 0.1), block(0, True, 0.2)]
    assert "MISSED" in verdicts(hurt)[0]
    told = markdown(hurt, PLAN, started=datetime.now(UTC), command="python", surroundings=HERE)
    assert "| probe | 200.0 | 200.0 | 200.0 |" in told


def test_failures_count_wherever_they_happened() -> None:
    records = [record("bystander-0", 6, 0.1), record("bystander-0", 1, 0.1, error="broken")]
    swaps = [Swap(1.0, 0.4, error="HTTP 422"), Swap(2.0, 0.4)]
    made = make_block(
        records, swaps, pair=0, swapping=True, warm_up_seconds=5, seconds=10, foreign_cpu_share=0
    )
    assert made.failed == 2
    with pytest.raises(NoAnswerError, match="broken"):
        make_block(
            records[1:], [], pair=0, swapping=False, warm_up_seconds=5, seconds=10, foreign_cpu_share=0
        )


def test_pairs_take_turns_in_who_begins() -> None:
    assert PLAN.order == [(0, False), (0, True), (1, True), (1, False)]
    assert PLAN.lanes == [["bystander-0"], ["bystander-1"], [SWAPPED]]
    with pytest.raises(PlanError, match="--versions"):
        Plan(**{**{f: getattr(PLAN, f) for f in Plan.__slots__}, "versions": 1}).check()


def test_growth_is_told_from_noise() -> None:
    hours = [place / 60 for place in range(60)]
    seconds = [3600 * hour for hour in hours]
    wave = [math.sin(place / 3) for place in range(60)]
    flat = growth(seconds, [100 + one for one in wave])
    assert flat.told == "no growth shown"
    leak = growth(seconds, [100 + 50 * hour + one for hour, one in zip(hours, wave, strict=True)])
    assert leak.told == "grows"
    assert leak.low < 50 < leak.high
    with pytest.raises(ValueError, match="8 are needed"):
        growth(seconds[:3], wave[:3])


def test_the_churn_report_judges_the_listing() -> None:
    plan = ChurnPlan(
        registered=4,
        active=2,
        minutes=1,
        concurrency=2,
        churn_seconds=1,
        list_seconds=1,
        sample_seconds=1,
        max_tokens=4,
        prompt_words=4,
        rank=4,
    )
    assert plan.asked == ["adapter-0000", "adapter-0002"]
    assert plan.lanes == [["adapter-0000"], ["adapter-0002"]]
    looks = [Look(float(place), 100 + math.sin(place), 500.0, 20, 30, 40) for place in range(60)]
    outcome = Outcome(
        [Verb(0, "load", 0.1)],
        [Verb(place, "list", 0.06) for place in range(10)],
        looks,
        [record("adapter-0000", 1, 0.1)],
    )
    told = churn_markdown(
        outcome, plan, engine="tiny", started=datetime.now(UTC), command="python", surroundings=HERE
    )
    assert "list in less than 50 ms: MISSED (p99 60.0 ms)" in told
    assert "memory of the gateway: no growth shown" in told
