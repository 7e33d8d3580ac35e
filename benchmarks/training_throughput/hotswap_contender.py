"""Our trainer with its defaults, built as `hotswap train` builds it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from adapters.data.encode import EncodedExample, ExampleEncoder, encode_all
from adapters.data.read import read_examples
from adapters.training.build import build_loop
from adapters.training.methods.registry import METHODS
from adapters.training.preflight import check_run
from adapters.training.processes import join_processes
from adapters.training.settings import load_train_settings
from bases.passport import read_passport
from bases.resolve import resolve_base
from bases.settings import BasesSettings
from benchmarks.training_throughput.block import BlockTask
from benchmarks.training_throughput.stopwatch import CountingCollator, StepTimer


class _ExampleCounter(CountingCollator):
    """Counts the tokens of the examples themselves: what several examples share is laid into a row once."""

    def __call__(self, features: list[EncodedExample]) -> dict[str, Any]:
        batch = super().__call__(features)
        self.tokens[-1] = sum(len(example.input_ids) for example in features)
        return batch


def train(task: BlockTask) -> tuple[Any, Any, StepTimer, CountingCollator, str]:
    """Train and return (model, tokenizer, times, counts, precision)."""
    home = BasesSettings().home
    settings = load_train_settings(
        base=task.base,
        rank=task.rank,
        alpha=task.alpha,
        learning_rate=task.learning_rate,
        batch_size=task.examples_per_step,
        max_steps=task.warmup_steps + task.steps,
        schedule="linear",
        seed=task.seed,
    )
    base = resolve_base(task.base, home=home)
    passport = read_passport(base, home=home)
    flight = check_run("throughput", settings, base, passport, num_processes=1)
    encoder = ExampleEncoder(base.path, max_length_tokens=flight.max_length_tokens)
    examples = encode_all(read_examples(Path(task.train)), encoder).examples
    with tempfile.TemporaryDirectory() as folder:
        loop = build_loop(
            settings=settings,
            method=METHODS[settings.method],
            base=base,
            facts=passport.facts,
            flight=flight,
            train=examples,
            validation=(),
            tokenizer=encoder.tokenizer,
            task_weights={},
            folder=Path(folder),
            processes=join_processes(on_cpu=flight.hardware.device == "cpu"),
            resumption=None,
            say=lambda _: None,
            console=None,
            note=lambda _: None,
        )
        timer, counter = StepTimer(), _ExampleCounter(loop.trainer._collate)
        loop.trainer._collate = counter
        loop.trainer.add_callback(timer)
        loop.run(budget_seconds=None, end_seconds=0.0)
    weights = next(loop.trainer.model.parameters()).dtype
    checkpointing = "on" if loop.trainer.args.gradient_checkpointing else "off"
    precision = (
        f"{weights} weights, {flight.precision.precision} products, gradient checkpointing {checkpointing}"
    )
    return loop.trainer.model, encoder.tokenizer, timer, counter, precision
