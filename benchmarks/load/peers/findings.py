"""What a contest says in words: the gateway's targets, what adapters cost each server, and what to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from benchmarks.load.comparison import figure_of
from benchmarks.load.figures.disturbance import MAX_NOISY_BLOCKS, MOST_SHARE
from benchmarks.load.peers.confidence import SHARE, Interval, added_ttft_interval, throughput_interval
from benchmarks.load.peers.contest import Heat, Way
from benchmarks.load.peers.meter import HTTP_CPU
from benchmarks.load.peers.peer import GATEWAY
from benchmarks.load.rounds import Arm, Turn, conclusion_of_turns
from benchmarks.statistics import Spread, paired_differences, paired_ratios, spread

# What the gateway may cost beside the same engine without it.
THROUGHPUT_RATIO_TARGET = 0.98
ADDED_TTFT_TARGET_SECONDS = 0.002
SAME_ENGINE = "vllm-mended"


def conclude(
    heats: Sequence[Heat],
    baseline: str,
    *,
    left_out: Mapping[str, str] = MappingProxyType({}),
    stopped: str | None = None,
) -> dict[str, Any]:
    """What the result file keeps: as `conclusion_of_turns`, over all loads, with `servers` and `notes` in words.

    `left_out`: arms without runs, and why; `stopped`: why not all turns were taken.
    """
    parts = [conclusion_of_turns(one.turns, one.arms, baseline) for one in heats]
    lines = [
        line
        for one in heats
        for line in (*gateway_lines(one), *adapter_lines(one, baseline), *cpu_lines(one), *length_lines(one))
    ]
    peers = list({way.peer.name: way.peer for way in heats[0].ways}.values())
    return {
        "baseline": baseline,
        "rounds": max(part["rounds"] for part in parts),
        "targets": {name: target for part in parts for name, target in part["targets"].items()},
        "arms": [figure for part in parts for figure in part["arms"]],
        "servers": {peer.name: peer.spec.shown() for peer in peers},
        "notes": [
            *([f"not all turns were taken: {stopped}"] if stopped is not None else []),
            *(f"{name}: {why}" for name, why in left_out.items()),
            *lines,
            *(note for peer in peers for note in peer.notes),
        ],
    }


def gateway_lines(one: Heat) -> list[str]:
    """Each way to ask the gateway against the same engine in the stock server, and whether the targets are met."""
    found = []
    disturbed = sum((turn.run.client.get("foreign_cpu_share") or 0.0) > MOST_SHARE for turn in one.turns)
    busy = disturbed > MAX_NOISY_BLOCKS * len(one.turns)
    for arm, way in _pairs(one):
        theirs = _arm_of(one, SAME_ENGINE, adapters=way.adapters)
        if way.peer.name != GATEWAY or theirs is None:
            continue
        ratio = _ratio(one.turns, arm.name, theirs, "output_tok_s")
        added = _added(one.turns, arm.name, theirs)
        parts = []
        if ratio is not None:
            target, sure = THROUGHPUT_RATIO_TARGET, throughput_interval(one.turns, arm.name, theirs)
            met = _word(ratio.median >= target, target, sure, busy)
            text = f"throughput {_text(ratio)} of the same engine's{_sure(sure)}"
            parts.append(f"{text}, at least {target:g} wanted: {met}")
        if added is not None:
            target, sure = ADDED_TTFT_TARGET_SECONDS, added_ttft_interval(one.turns, arm.name, theirs)
            met = _word(added.median <= target, target, sure, busy)
            text = f"TTFT p50 {_text(added, 1000.0, '+.1f')} ms more{_sure(sure, 1000.0, '+.1f')}"
            parts.append(f"{text}, at most {1000 * target:g} wanted: {met}")
        if parts:
            found.append(f"{arm.name}: {'; '.join(parts)}")
    return found


def adapter_lines(one: Heat, baseline: str) -> list[str]:
    """Traffic over adapters on each server against the same on `baseline`."""
    theirs = _arm_of(one, baseline, adapters=True)
    found = []
    for arm, way in _pairs(one):
        if not way.adapters or theirs is None or arm.name == theirs:
            continue
        ratio = _ratio(one.turns, arm.name, theirs, "output_tok_s")
        if ratio is not None:
            found.append(f"{arm.name}: throughput {_text(ratio)} of that of {theirs}")
    return found


def cpu_lines(one: Heat) -> list[str]:
    """What the process that answers HTTP spends on a token: the steadiest measure of what a gateway costs."""
    found = []
    for arm, way in _pairs(one):
        whose = "the one process that answers and computes" if way.peer.one_process else "its HTTP process"
        spent = list(_series(one.turns, arm.name, (HTTP_CPU,)).values())
        if spent:
            found.append(
                f"{arm.name}: {_text(spread(spent), form='.2f')} ms of a processor per token in {whose}"
            )
    return found


def length_lines(one: Heat) -> list[str]:
    """Which runs were longer than asked for, on servers whose answers take long."""
    return [
        f"{arm.name}: runs of {arm.bench.settings.seconds:g} s, whole answers without a warm-up, for they take long"
        for arm, way in _pairs(one)
        if arm.bench.settings.seconds != way.bench.settings.seconds
    ]


def _pairs(one: Heat) -> list[tuple[Arm, Way]]:
    return list(zip(one.arms, one.ways, strict=True))


def _arm_of(one: Heat, peer: str, *, adapters: bool) -> str | None:
    found = (arm.name for arm, way in _pairs(one) if (way.peer.name, way.adapters) == (peer, adapters))
    return next(found, None)


def _word(met: bool, target: float, sure: Interval | None, busy: bool) -> str:
    if busy:
        return "undecided, the machine was busy"
    return ("met" if met else "MISSED") + (
        ", not for sure" if sure is not None and sure.holds(target) else ""
    )


def _sure(found: Interval | None, scale: float = 1.0, form: str = ".3f") -> str:
    if found is None:
        return ""
    low, high = (format(scale * value, form) for value in (found.low, found.high))
    return f" ({100 * SHARE:g} % sure of {low} to {high})"


def _ratio(turns: Sequence[Turn], ours: str, theirs: str, *path: str) -> Spread | None:
    found = paired_ratios(_series(turns, ours, path), _series(turns, theirs, path))
    return spread(found) if found else None


def _added(turns: Sequence[Turn], ours: str, theirs: str) -> Spread | None:
    path = ("ttft_seconds", "p50")
    found = paired_differences(_series(turns, ours, path), _series(turns, theirs, path))
    return spread(found) if found else None


def _series(turns: Sequence[Turn], arm: str, path: tuple[str, ...]) -> dict[int, float]:
    found = {turn.round: figure_of(turn.run.figures, path) for turn in turns if turn.arm == arm}
    return {number: value for number, value in found.items() if value is not None}


def _text(found: Spread, scale: float = 1.0, form: str = ".3f") -> str:
    median, low, high = (format(scale * value, form) for value in (found.median, found.low, found.high))
    return f"{median} ({low} to {high})" if found.count > 1 else median
