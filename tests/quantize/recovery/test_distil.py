"""Distilling brings a rounded base nearer to the original on rows that it never saw."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from adapters.export.factors import Factors
from adapters.training.base_model import load_training_model
from bases.resolve import ResolvedBase
from quantize.recovery.distil import distil
from quantize.recovery.gain import row_divergences
from quantize.recovery.outcome import Distillation
from quantize.recovery.student import no_factors, put_on, read_factors
from tests.quantize.recovery.conftest import quiet

MODULES = {
    f"model.layers.{n}.{name}_proj": (into, out)
    for n in (0, 1)
    for name, into, out in (("mlp.gate", 128, 256), ("mlp.up", 128, 256), ("self_attn.o", 128, 128))
}


def load(base: ResolvedBase) -> Any:
    model = load_training_model(base, dtype=torch.float32).model.eval()
    model.requires_grad_(False)
    return model


def run(
    original: ResolvedBase, quantised: ResolvedBase, rows: list[list[int]], **given: Any
) -> tuple[Any, Distillation]:
    student = put_on(load(quantised), no_factors(MODULES), rank=16, linear_modules=MODULES)
    options: dict[str, Any] = {
        "learning_rate": 5e-3,
        "budget_seconds": 600.0,
        "max_steps": 40,
        "batch_tokens": 512,
        "seed": 0,
        "progress": quiet,
    }
    return student, distil(load(original), student, rows, **(options | given))


def test_the_divergence_falls_on_rows_that_were_not_trained_on(
    original: ResolvedBase, four_bits: ResolvedBase, rows: list[list[int]], held_out: list[list[int]]
) -> None:
    before = row_divergences(load(original), load(four_bits), held_out)
    student, done = run(original, four_bits, rows)
    after = row_divergences(load(original), student, held_out)
    assert sum(after) < 0.95 * sum(before)
    assert done.steps == 40 and done.tokens == 40 * 512 and done.end_reason == "steps"
    assert done.divergence_at_end_nats < done.divergence_at_start_nats


def test_the_same_seed_gives_the_same_adapter_and_another_one_does_not(
    original: ResolvedBase, four_bits: ResolvedBase, rows: list[list[int]]
) -> None:
    first, second, other = (
        read_factors(run(original, four_bits, rows, max_steps=3, seed=seed)[0], MODULES) for seed in (0, 0, 1)
    )
    module = next(iter(MODULES))
    assert torch.equal(first[module].b, second[module].b)
    assert not torch.equal(first[module].b, other[module].b)


def test_it_ends_when_time_is_up_and_makes_at_least_one_step(
    original: ResolvedBase, four_bits: ResolvedBase, rows: list[list[int]]
) -> None:
    clock = itertools.count(0.0, 40.0)
    _, done = run(
        original, four_bits, rows, max_steps=None, budget_seconds=100.0, now=lambda: float(next(clock))
    )
    assert 1 <= done.steps <= 3 and done.end_reason == "time"
    _, once = run(original, four_bits, rows, max_steps=None, budget_seconds=1e-9)
    assert once.steps == 1


def test_the_state_that_was_best_on_rows_apart_is_what_stays(
    original: ResolvedBase, four_bits: ResolvedBase, rows: list[list[int]], held_out: list[list[int]]
) -> None:
    start = row_divergences(load(original), load(four_bits), held_out)
    ruined, done = run(original, four_bits, rows, learning_rate=3.0, max_steps=5, check_rows=held_out)
    assert done.best_step == 0
    assert row_divergences(load(original), ruined, held_out) == pytest.approx(start, rel=1e-5)
    _, kept = run(original, four_bits, rows, max_steps=10, check_rows=held_out)
    assert kept.best_step > 0
    _, unchecked = run(original, four_bits, rows, max_steps=2)
    assert unchecked.best_step == 2


def test_progress_says_what_is_left(
    original: ResolvedBase, four_bits: ResolvedBase, rows: list[list[int]]
) -> None:
    clock, lines = itertools.count(0.0, 15.0), list[str]()
    run(original, four_bits, rows, max_steps=3, now=lambda: float(next(clock)), progress=lines.append)
    assert "s left" in lines[0] and "nats per token" in lines[0]


def test_a_narrow_start_is_kept_and_filled_up_with_directions_that_do_nothing(
    four_bits: ResolvedBase,
) -> None:
    module = next(iter(MODULES))
    source = torch.Generator().manual_seed(0)
    start = Factors(torch.randn(2, 128, generator=source), torch.randn(256, 2, generator=source), 0.5)
    adapted = put_on(load(four_bits), {module: start}, rank=4, linear_modules=MODULES)
    found = read_factors(adapted, [module])[module]
    assert found.rank == 4 and found.a[2:].abs().sum() > 0
    assert torch.allclose(found.dense(), start.dense(), atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_batches_are_a_row_at_least_and_may_be_more_than_all_rows(
    original: ResolvedBase, four_bits: ResolvedBase, rows: list[list[int]], batch_tokens: int
) -> None:
    _, done = run(original, four_bits, rows[:2], max_steps=1, batch_tokens=batch_tokens)
    assert done.tokens == max(1, batch_tokens // len(rows[0])) * len(rows[0])
