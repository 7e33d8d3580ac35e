"""What the project promised of quantised bases, and whether it came out."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.quantisation.made import RECOVERED
from benchmarks.quantisation.report import MachineFigures, Report
from benchmarks.quantisation.task import kept_share
from benchmarks.quantisation.wording import percent, ratio, times

# At concurrency 1, against float32 on the same machine in the same run.
SPEED_TARGETS = {"w4a16": 2.0, "int8": 1.2}
WEIGHTS_TARGET = 0.4  # of W4A16
KEPT_TARGET = 0.99


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise. `met` None: not measured, or the machine was too busy to say."""

    promise: str
    found: str
    met: bool | None

    @property
    def word(self) -> str:
        return {True: "met", False: "MISSED", None: "undecided"}[self.met]


def verdicts(report: Report, figures: MachineFigures) -> list[Verdict]:
    """For every quantised server of the machine."""
    found: list[Verdict] = []
    for each in figures.memory:
        scheme, slash, _ = each.served.partition("/")
        if slash:
            found += _speed(each.served, scheme, figures)
            found += _weights(each.served, scheme, figures)
    return found + _kept(report, figures)


def _speed(served: str, scheme: str, figures: MachineFigures) -> list[Verdict]:
    target = next((value for part, value in SPEED_TARGETS.items() if part in scheme), None)
    cell = figures.cell(served, 1)
    if target is None or cell is None or cell.throughput_ratio is None:
        return []
    promise = f"{served}: at least {target:g}x the tokens per second of float32 at concurrency 1"
    baseline = figures.cell("float32", 1)
    noisy = cell.noisy_blocks + (baseline.noisy_blocks if baseline else 0)
    blocks = cell.blocks + (baseline.blocks if baseline else 0)
    met = None if noisy * 5 > blocks else cell.throughput_ratio.value >= target
    busy = ", the machine was busy" if met is None else ""
    return [Verdict(promise, times(cell.throughput_ratio.value) + busy, met)]


def _weights(served: str, scheme: str, figures: MachineFigures) -> list[Verdict]:
    original, ours = figures.memory_of("float32"), figures.memory_of(served)
    share = ratio(ours.weights_bytes if ours else None, original.weights_bytes if original else None)
    if "w4a16" not in scheme or share is None:
        return []
    promise = f"{served}: weights in memory at most {WEIGHTS_TARGET:g}x those of float32"
    return [Verdict(promise, times(share), share <= WEIGHTS_TARGET)]


def _kept(report: Report, figures: MachineFigures) -> list[Verdict]:
    original = figures.task_of("plain", "float32", report.adapter)
    if original is None:
        return []
    found = []
    for ours in figures.task:
        if ours.subject != "plain" or ours is original:
            continue
        wanted = RECOVERED if "w4a16" in ours.served else report.adapter
        kept = kept_share(ours, original) if ours.adapter == wanted else None
        if kept is not None:
            promise = f"{ours.served} with {ours.adapter}: keeps at least {KEPT_TARGET:.0%} of the accuracy"
            interval = "" if kept.low is None else f" ({percent(kept.low)} to {percent(kept.high)})"
            found.append(Verdict(promise, percent(kept.value) + interval, kept.value >= KEPT_TARGET))
    return found
