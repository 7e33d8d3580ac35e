"""One block in a process of its own: a BlockTask on standard input, a BlockResult as the last line of output."""

from __future__ import annotations

import importlib
import os
import resource
import sys
import time
import warnings
from pathlib import Path

import psutil

from benchmarks.training_throughput.block import BlockResult, BlockTask
from benchmarks.training_throughput.data import read_conversations, validation_loss


def run(task: BlockTask) -> BlockResult:
    """Train the block's steps, then measure the validation loss."""
    import torch

    contender = importlib.import_module(f"benchmarks.training_throughput.{task.contender}_contender")
    load = _Load()
    model, tokenizer, timer, counter, precision = contender.train(task)
    foreign = load.foreign_share()
    count = len(timer.seconds)
    measured = slice(task.warmup_steps, count)
    loss = None
    if task.validation_examples:
        held_out = read_conversations(Path(task.validation), limit=task.validation_examples)
        loss = validation_loss(model, tokenizer, held_out)
    peak_bytes = (
        torch.cuda.max_memory_allocated()
        if torch.cuda.is_available()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return BlockResult(
        contender=task.contender,
        step_seconds=timer.seconds[measured],
        step_tokens=counter.tokens[measured],
        step_positions=counter.positions[measured],
        validation_loss=loss,
        precision=precision,
        peak_memory_bytes=peak_bytes,
        foreign_cpu_share=foreign,
    )


class _Load:
    """How much of the machine something else used since this was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._busy, self._own = self._read()

    def foreign_share(self) -> float:
        busy, own = self._read()
        capacity = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        return max(0.0, (busy - self._busy) - (own - self._own)) / capacity

    @staticmethod
    def _read() -> tuple[float, float]:
        times = psutil.cpu_times()
        own = psutil.Process().cpu_times()
        busy = (
            times.user + times.nice + times.system + getattr(times, "irq", 0) + getattr(times, "softirq", 0)
        )
        return busy, own.user + own.system


def main() -> int:
    """Exit codes: 0 measured, 1 not."""
    task = BlockTask.model_validate_json(sys.stdin.read())
    # The contenders' libraries warn about their own defaults; the figures are what counts here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = run(task)
    print(result.model_dump_json(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
