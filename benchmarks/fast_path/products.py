"""What an adapter's products cost in bfloat16 and in float32, for a run of rows: where the fast path changes over.

`python -m benchmarks.fast_path.products`. Processor time of one thread, of all four kinds of layer of the default
base together. In turns; each length is met once by bfloat16 and then again, because oneDNN generates code for every
new shape.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.surroundings import read_surroundings

# (inputs, outputs, slices) of q, k, v; o; gate, up; down.
LAYERS = ((576, 960, 3), (576, 576, 1), (576, 3072, 2), (1536, 576, 1))
RANKS = (8, 64)
RUNS = ((4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512))  # rows: from, below
_PACKAGES = ("torch",)
_LENGTHS = 20  # tried of each run at most

Delta = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], object]


@dataclass(frozen=True, slots=True)
class Figure:
    """Median microseconds of a layer of each kind, at lengths of one run."""

    rank: int
    rows: tuple[int, int]
    float32: float
    first: float  # bfloat16, of a length that was not there before
    again: float


def measure(
    ranks: Sequence[int] = RANKS,
    runs: Sequence[tuple[int, int]] = RUNS,
    layers: Sequence[tuple[int, int, int]] = LAYERS,
    *,
    lengths: int = _LENGTHS,
) -> list[Figure]:
    """One figure for each rank and run. Sets torch's threads to one while it measures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_figure(rank, run, layers, lengths) for rank in ranks for run in runs]
    finally:
        torch.set_num_threads(threads)


def _figure(rank: int, run: tuple[int, int], layers: Sequence[tuple[int, int, int]], lengths: int) -> Figure:
    factors = [
        (torch.randn(inputs, slices * rank), torch.randn(slices * rank, outputs))
        for inputs, outputs, slices in layers
    ]
    draw = random.Random(0)  # noqa: S311 - lengths, no secret
    tried = draw.sample(range(*run), min(lengths, run[1] - run[0]))
    first = [_microseconds(_native, factors, rows) for rows in tried]
    pairs = [(_microseconds(_wide, factors, rows), _microseconds(_native, factors, rows)) for rows in tried]
    wide, again = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Figure(rank, run, wide, statistics.median(first), again)


def _microseconds(delta: Delta, factors: Sequence[tuple[torch.Tensor, torch.Tensor]], rows: int) -> float:
    seconds = 0.0
    for a, b in factors:
        x = torch.randn(rows, a.shape[0]).bfloat16()
        y = torch.zeros(rows, b.shape[1], dtype=torch.bfloat16)
        started = time.thread_time()
        delta(y, x, a, b)
        seconds += time.thread_time() - started
    return seconds * 1e6


def _wide(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> object:
    return y.add_(x.float() @ a @ b)


def _native(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> object:
    return y.addmm_(x @ a.bfloat16(), b.bfloat16())


def table(figures: Sequence[Figure]) -> str:
    """As Markdown."""
    lines = [
        "| rank | rows of one run | float32, us | bfloat16, us | bfloat16 of a new length, us |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in figures:
        first, last = each.rows[0], each.rows[1] - 1
        lines.append(
            f"| {each.rank} | {first} to {last} | {each.float32:.0f} | {each.again:.0f} | {each.first:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{read_surroundings(_PACKAGES).line()}.\n\n{table(measure())}")
