"""The parts of a suite, in their order. One more is one entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.figures.figures import reached_req_s
from benchmarks.load.result_file import Measurement
from benchmarks.load.run import RunResult
from benchmarks.load.suite import headlines, measures
from benchmarks.load.suite.budget import Need
from benchmarks.load.suite.stage import Measured, Stage


@dataclass(frozen=True, slots=True)
class Part:
    """One section of the report."""

    key: str  # names it in files, in --parts and in comparisons
    title: str
    question: str
    need: Need
    measure: Callable[[Stage], Measured]
    headlines: Callable[[Measurement], Sequence[headlines.Headline]]
    plots: tuple[str, ...] = ()  # of benchmarks.load.report.plots.KINDS
    at_capacity: bool = True  # its rates are multiples of the capacity


PARTS: tuple[Part, ...] = (
    Part(
        "closed",
        "Closed loop: base and adapters",
        "What does the gateway reach when answers set the pace, and what do adapters cost?",
        Need(runs=2, each_concurrency=True),
        measures.closed_loop,
        headlines.of_closed_loop,
        ("tax", "tpot"),
        at_capacity=False,
    ),
    Part(
        "open",
        "Open loop: rates around the capacity",
        "How do latencies and goodput change when requests come by the clock, up to what it holds and beyond?",
        Need(runs=len(measures.RATES), window=1.1),
        measures.open_loop,
        headlines.of_open_loop,
        ("goodput", "throughput-latency", "ttft", "stages"),
    ),
    Part(
        "mix",
        "Uniform and skewed traffic",
        "Does it matter who is asked, and do the adapters that are asked seldom, or have a high rank, wait longer?",
        Need(runs=2),
        measures.mixes,
        headlines.of_mixes,
        ("adapters", "heat-map", "attainment"),
    ),
    Part(
        "swap",
        "Swaps under load",
        f"What do requests on the other adapters pay when one is replaced every {measures.SWAP_SECONDS:g} s?",
        Need(runs=2),
        measures.swaps,
        headlines.of_swaps,
        ("ttft", "tpot", "timeline"),
    ),
    Part(
        "overload",
        "Twice the capacity",
        "Does goodput stay when more is asked than can be done, and is the rest refused?",
        Need(runs=1, warmup=0.6),
        measures.overload,
        headlines.of_overload,
        ("timeline", "server"),
    ),
    Part(
        "idle",
        "At rest",
        "What does the gateway take while nobody asks?",
        Need(runs=1, warmup=0.1, window=0.5),
        measures.idle,
        headlines.of_idle,
        at_capacity=False,
    ),
)
BY_KEY: Mapping[str, Part] = {part.key: part for part in PARTS}


def parse_parts(text: str, *, concurrency: int, capacity_req_s: float | None) -> tuple[Part, ...]:
    """`all`, or keys with commas, in any order; with so many closed loops.

    Raises LoadOptionError, also when nothing would tell the capacity.
    """
    wanted = list(BY_KEY) if text == "all" else [part.strip() for part in text.split(",") if part.strip()]
    unknown = [key for key in wanted if key not in BY_KEY]
    if unknown or not wanted:
        raise LoadOptionError(f"--parts {text!r}: give all, or some of {', '.join(BY_KEY)} with commas")
    parts = tuple(replace(part, need=part.need.over(concurrency)) for part in PARTS if part.key in wanted)
    if capacity_req_s is None and "closed" not in wanted and any(part.at_capacity for part in parts):
        raise LoadOptionError(
            f"--parts {text}: their rates are multiples of the capacity, which the part closed finds; "
            "add it, or give --capacity"
        )
    return parts


def capacity_of(key: str, runs: Sequence[RunResult]) -> float | None:
    """Requests per second that the last closed loop reached; None for parts that tell nothing of it."""
    if key != "closed" or not runs:
        return None
    return reached_req_s(runs[-1].figures)
