"""The figures that fine-tuning tutorials print about quantising, beside what was measured here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.quantisation.report import MachineFigures, Report
from benchmarks.quantisation.wording import NONE, percent, ratio, spread, times


@dataclass(frozen=True, slots=True)
class Claim:
    """What is printed for one way of quantising: loss of accuracy, memory and speed against the original."""

    name: str
    loss: float
    memory: float
    speed: float
    fits: Callable[[str], bool]


CLAIMS = (
    Claim("INT8", 0.012, 0.5, 2.3, lambda scheme: scheme.startswith("int8")),
    Claim("W4A16", 0.037, 0.25, 4.1, lambda scheme: scheme.endswith("w4a16")),
    Claim("GPTQ", 0.008, 0.30, 3.8, lambda scheme: scheme.startswith("gptq")),
)

HEADINGS = (
    "printed for",
    "loss",
    "memory",
    "speed",
    "measured here",
    "accuracy lost, merged base (points)",
    "perplexity, chat",
    "weights in memory",
    "whole server",
    "speed",
)


def rows(report: Report, figures: MachineFigures) -> list[tuple[str, ...]]:
    """One row per claim and server that it fits, such as W4A16 beside gptq-w4a16 in float32."""
    found: list[tuple[str, ...]] = []
    for claim in CLAIMS:
        printed = (claim.name, percent(claim.loss), times(claim.memory), times(claim.speed, digits=1))
        served = [
            each.served
            for each in figures.memory
            if claim.fits(each.served.partition("/")[0]) and "/" in each.served
        ]
        if not served:
            found.append((*printed, "not measured", *(NONE,) * 5))
        found += [(*printed, name, *_measured(name, report, figures)) for name in served]
    return found


def _measured(served: str, report: Report, figures: MachineFigures) -> tuple[str, ...]:
    scheme = served.partition("/")[0]
    quality = report.quality.get(f"{scheme}/chat")
    original, ours = figures.memory_of("float32"), figures.memory_of(served)
    weights = server = None
    if original is not None and ours is not None:
        weights = ratio(ours.weights_bytes, original.weights_bytes)
        server = ratio(ours.pss_without_kv_bytes, original.pss_without_kv_bytes)
    return (
        accuracy_lost(served, figures),
        percent(quality.perplexity_ratio.value - 1, signed=True) if quality else NONE,
        times(weights),
        times(server),
        speeds(served, figures),
    )


def accuracy_lost(served: str, figures: MachineFigures) -> str:
    """Percentage points of task accuracy that the merged base lost, both ends of each interval beside it."""
    original, ours = figures.task_of("merged", "float32", None), figures.task_of("merged", served, None)
    if original is None or ours is None:
        return NONE
    lost = 100 * (original.accuracy.value - ours.accuracy.value)
    return f"{lost:+.1f} (of {original.accuracy.count})"


def speeds(served: str, figures: MachineFigures) -> str:
    """Tokens per second against float32 at every concurrency."""
    if figures.speed is None:
        return NONE
    cells = [each for each in figures.speed.cells if each.served == served]
    return (
        "; ".join(f"c={each.concurrency}: {spread(each.throughput_ratio, '{:.2f}')}x" for each in cells)
        or NONE
    )
