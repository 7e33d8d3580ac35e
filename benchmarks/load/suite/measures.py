"""What each part does on the gateway. A part is told how long its runs are; none knows of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import psutil

from benchmarks.load.guests import guests
from benchmarks.load.lora_tax import TaxPlan, tax_arms
from benchmarks.load.rounds import Arm, Turn, conclusion_of_turns, take_turns
from benchmarks.load.run import RunResult
from benchmarks.load.suite.stage import Measured, Stage
from benchmarks.load.swap import SWAPPED, swap_arms, swap_conclusion
from benchmarks.load.workload.assignment import parse_assignment

RATES = (0.5, 0.8, 1.0, 1.25)  # of the capacity
OVERLOAD = 2.0
MIX_RATE = 0.5  # of the capacity: no queue hides how adapters differ
SKEWED = "skewed:1.5"
SWAP_RATE = 0.5
SWAP_SECONDS = 2.0  # from one swap to the next
_VERSIONS = 4  # that take turns in a swap


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What the gateway takes while nobody asks. Shares are of one core."""

    seconds: float
    cpu_share: float  # all its processes
    http_cpu_share: float  # the one that speaks HTTP
    memory_bytes: int  # all, what they share counted once
    adapters: int


def closed_loop(stage: Stage) -> Measured:
    """Base and adapters in turns, at each concurrency."""
    count = len(stage.bench.load.adapters)
    arms = tax_arms(stage.bench, TaxPlan((count,), stage.concurrency))
    turns = take_turns(arms, rounds=1, progress=stage.progress, say=stage.say)
    measured = _in_turns(turns, arms)
    loops = [(at_once, who) for at_once in stage.concurrency for who in ("base", "adapters")]
    named = [
        {"run": turn.run.name, "arm": turn.arm, "concurrency": at_once, "who": who}
        for turn, (at_once, who) in zip(turns, loops, strict=True)
    ]
    return Measured(measured.runs, {**measured.conclusion, "loops": named})


def open_loop(stage: Stage) -> Measured:
    """Rates around the capacity, ascending; those beyond one that is not held are left out."""
    runs: list[RunResult] = []
    for place, share in enumerate(RATES):
        runs.append(stage.run_at(share, f"{share:g} x capacity", seed=place))
        if any(finding.code == "unsustained" for finding in runs[-1].findings):
            stage.say("this rate is not held: higher ones are left out")
            break
    return Measured(runs, {"capacity_req_s": stage.capacity_req_s})


def mixes(stage: Stage) -> Measured:
    """All adapters alike, and a few of them much more than the others: the same requests at the same moments."""
    bench = stage.bench_at(MIX_RATE)
    arms = []
    for name in ("uniform", SKEWED):
        load = replace(bench.load, mix=parse_assignment(name))
        prompts = replace(bench.prompts, salt=name)  # other texts, or the prefix cache would help the second
        arms.append(Arm(name, replace(bench, load=load, prompts=prompts), load.arrivals))
    turns = take_turns(arms, rounds=1, progress=stage.progress, say=stage.say)
    return _in_turns(turns, arms)


def swaps(stage: Stage) -> Measured:
    """Requests on all adapters and one more, at rest and while that one is replaced again and again."""
    gateway = stage.gateway
    with guests(
        gateway.url, gateway.maker, [SWAPPED], sources=_VERSIONS, ranks=gateway.ranks[-1:]
    ) as brought:
        bench = brought.asked_by(stage.bench_at(SWAP_RATE))
        arms = swap_arms(bench, brought, every_seconds=SWAP_SECONDS, admin_key=None)
        turns = take_turns(arms, rounds=1, progress=stage.progress, say=stage.say)
    conclusion = swap_conclusion(turns, arms, slo=bench.slo, every_seconds=SWAP_SECONDS)
    return Measured([turn.run for turn in turns], conclusion)


def overload(stage: Stage) -> Measured:
    """More requests than can be answered."""
    run = stage.run_at(OVERLOAD, f"{OVERLOAD:g} x capacity")
    return Measured([run], {"capacity_req_s": stage.capacity_req_s})


def idle(stage: Stage, sleep: Callable[[float], None] = time.sleep) -> Measured:
    """Processor time and memory of the gateway while nobody asks."""
    stage.say("nobody asks")
    ids = stage.gateway.process_ids()
    sleep(stage.bench.settings.warmup_seconds)
    before, began = _cpu_seconds(ids), time.monotonic()
    sleep(stage.bench.settings.seconds)
    seconds = time.monotonic() - began
    shares = [max(0.0, now - then) / seconds for now, then in zip(_cpu_seconds(ids), before, strict=True)]
    cost = IdleCost(
        seconds=round(seconds, 3),
        cpu_share=round(sum(shares), 5),
        http_cpu_share=round(shares[0], 5),
        memory_bytes=sum(_memory_bytes(number) for number in ids),
        adapters=len(stage.gateway.adapters),
    )
    return Measured([], {"idle": asdict(cost)})


def _in_turns(turns: Sequence[Turn], arms: Sequence[Arm]) -> Measured:
    return Measured([turn.run for turn in turns], conclusion_of_turns(turns, arms, arms[0].name))


def _cpu_seconds(process_ids: Sequence[int]) -> list[float]:
    """Of each; one that is gone counts as nothing."""
    found = []
    for number in process_ids:
        try:
            times = psutil.Process(number).cpu_times()
        except psutil.NoSuchProcess:
            found.append(0.0)
        else:
            found.append(float(times.user + times.system))
    return found


def _memory_bytes(process_id: int) -> int:
    try:
        full = psutil.Process(process_id).memory_full_info()
    except psutil.NoSuchProcess:
        return 0
    return int(getattr(full, "pss", full.rss))
