"""The laid-out factors: right, trimmed, and never stale."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from serve.engine.cpu import lora_grouped
from serve.engine.cpu.lora_compiled import CompiledPunicaWrapper
from serve.engine.cpu.lora_grouped import GroupedPunicaWrapper
from serve.engine.cpu.slot_factors import MAX_BLOCK_DIAGONAL_SLOTS, SlotFactors
from serve.engine.cpu.slot_layout import SlotLayout
from tests.serve.engine.cpu.lora_batch import LoraLayer, expected_output, make_layer, make_wrapper, set_slots

SLICES = (6, 3, 3)
every_mode = pytest.mark.parametrize(
    "mode", [nullcontext, torch.no_grad, torch.inference_mode], ids=["plain", "no_grad", "inference"]
)
each_wrapper = pytest.mark.parametrize("wrapper_class", [GroupedPunicaWrapper, CompiledPunicaWrapper])


def vllm_layer(layer: LoraLayer) -> SimpleNamespace:
    """What vLLM's own set_lora and reset_lora need of a layer object, and those two."""
    with warnings.catch_warnings():  # importing vLLM's layers raises some of torch's
        warnings.simplefilter("ignore")
        from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
        from vllm.lora.layers.column_parallel_linear import MergedColumnParallelLinearWithLoRA
    layer_class = MergedColumnParallelLinearWithLoRA if len(layer.a) > 1 else BaseLinearLayerWithLoRA
    view = SimpleNamespace(lora_a_stacked=layer.a, lora_b_stacked=layer.b, n_slices=len(layer.a), tp_size=1)
    view.reset_lora = lambda index: BaseLinearLayerWithLoRA.reset_lora(view, index)
    view.set_lora = lambda index, a, b: layer_class.set_lora(view, index, a, b)
    return view


def layouts(wrapper: GroupedPunicaWrapper) -> list[SlotLayout]:
    """Of every layer that the wrapper has met."""
    packed = [factors for _, factors in getattr(wrapper, "_packed", {}).values()]
    return [*wrapper._factors.values(), *packed]


def linear(wrapper: GroupedPunicaWrapper, layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(x.shape[0], sum(layer.output_slices))
    wrapper.add_lora_linear(y, x, layer.a, layer.b, 1.0, layer.output_slices)
    return y


@each_wrapper
@every_mode
@pytest.mark.parametrize("slices", [(6,), SLICES])
def test_a_slot_used_again_by_another_adapter_gives_the_new_one_at_once(wrapper_class, mode, slices):
    """The cache must not outlive the weights: vLLM overwrites a slot in place, under the same id too."""
    layer = make_layer([3, 3], 10, slices, max_rank=4)
    vllm = vllm_layer(layer)
    wrapper = make_wrapper(wrapper_class, [0, 1, -1], num_slots=2)
    x = torch.randn(3, 10)
    for rank in (3, 2, 4, 1):
        a = [torch.randn(rank, 10) for _ in slices]
        b = [torch.randn(size, rank) for size in slices]
        with mode():
            before = linear(wrapper, layer, x)
            vllm.set_lora(1, a if len(slices) > 1 else a[0], b if len(slices) > 1 else b[0])
            after = linear(wrapper, layer, x)
        wanted = expected_output(torch.zeros_like(after), x, layer, [0, 1, -1])
        torch.testing.assert_close(after.to(torch.float64), wanted, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(after[1], before[1])
        assert torch.equal(after[0], before[0])


@each_wrapper
def test_a_slot_written_while_no_row_used_it_gives_the_new_adapter(wrapper_class):
    layer = make_layer([3, 3], 10, SLICES, max_rank=4)
    wrapper = make_wrapper(wrapper_class, [0, 1], num_slots=2)
    x = torch.randn(2, 10)
    linear(wrapper, layer, x)
    set_slots(wrapper, [0, 0], num_slots=2)
    layer.b[0][1] *= 3
    linear(wrapper, layer, x)
    set_slots(wrapper, [0, 1], num_slots=2)
    after = linear(wrapper, layer, x)
    wanted = expected_output(torch.zeros_like(after), x, layer, [0, 1])
    torch.testing.assert_close(after.to(torch.float64), wanted, rtol=1e-5, atol=1e-5)


@each_wrapper
@every_mode
def test_a_slot_that_was_reset_adds_nothing(wrapper_class, mode):
    layer = make_layer([3, 3], 10, SLICES, max_rank=4)
    wrapper = make_wrapper(wrapper_class, [1, 1], num_slots=2)
    x = torch.randn(2, 10)
    with mode():
        assert linear(wrapper, layer, x).abs().sum() > 0
        vllm_layer(layer).reset_lora(1)
        assert linear(wrapper, layer, x).abs().sum() == 0


@each_wrapper
def test_tensors_without_a_version_counter_are_never_cached(wrapper_class):
    with torch.inference_mode():
        layer = make_layer([3], 10, SLICES, max_rank=4)
        wrapper = make_wrapper(wrapper_class, [0, 0], num_slots=1)
        x = torch.randn(2, 10)
        linear(wrapper, layer, x)
        layer.b[0][0] *= 2
        wanted = expected_output(torch.zeros(2, sum(SLICES)), x, layer, [0, 0])
        torch.testing.assert_close(linear(wrapper, layer, x).to(torch.float64), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_slots", [2, MAX_BLOCK_DIAGONAL_SLOTS + 1])
def test_factors_hold_the_true_rank_and_give_the_same_product(num_slots):
    layer = make_layer([0, 5] + [0] * (num_slots - 2), 10, SLICES, max_rank=16)
    factors = SlotFactors(layer.a, layer.b, SLICES)
    assert factors.prepare((1,))
    assert factors.rank == 5
    assert factors.is_block_diagonal == (num_slots == 2)
    assert factors.a.shape == (num_slots, 10, 3 * 5)


@each_wrapper
def test_a_later_slot_of_higher_rank_widens_the_factors_and_keeps_the_earlier_ones(wrapper_class):
    layer = make_layer([2, 7], 10, SLICES, max_rank=16)
    wrapper = make_wrapper(wrapper_class, [0, 0], num_slots=2)
    x = torch.randn(2, 10)
    first = linear(wrapper, layer, x)
    set_slots(wrapper, [1, 0], num_slots=2)
    both = linear(wrapper, layer, x)
    torch.testing.assert_close(both[1], first[1])
    wanted = expected_output(torch.zeros_like(both), x, layer, [1, 0])
    torch.testing.assert_close(both.to(torch.float64), wanted, rtol=1e-5, atol=1e-5)


def test_a_layer_no_active_adapter_touches_is_left_out():
    layer = make_layer([0, 4], 10, SLICES, max_rank=4)
    factors = SlotFactors(layer.a, layer.b, SLICES)
    assert not factors.prepare((0,))
    assert factors.prepare((0, 1))
    assert not factors.prepare((0,))


@each_wrapper
def test_beyond_the_memory_limit_results_stay_right_and_nothing_is_kept(wrapper_class, monkeypatch):
    monkeypatch.setattr(lora_grouped, "MAX_FACTOR_BYTES", 0)
    layer = make_layer([3, 2], 10, SLICES, max_rank=4)
    wrapper = make_wrapper(wrapper_class, [0, -1, 1, 1], num_slots=2)
    x = torch.randn(4, 10)
    for _ in range(2):
        result = linear(wrapper, layer, x)
        wanted = expected_output(torch.zeros_like(result), x, layer, [0, -1, 1, 1])
        torch.testing.assert_close(result.to(torch.float64), wanted, rtol=1e-5, atol=1e-5)
        assert [factors.size_bytes for factors in layouts(wrapper)] == [0]


@each_wrapper
def test_a_layer_laid_out_again_is_accounted_for_once(wrapper_class, monkeypatch):
    """Else a few swaps would fill the memory on paper, and every step lay everything out anew."""
    layers = [make_layer([3, 2], 10, SLICES, max_rank=4, seed=seed) for seed in range(2)]
    wrapper = make_wrapper(wrapper_class, [0, 1], num_slots=2)
    x = torch.randn(2, 10)
    for layer in layers:
        linear(wrapper, layer, x)
    both_bytes = sum(factors.size_bytes for factors in layouts(wrapper))
    monkeypatch.setattr(lora_grouped, "MAX_FACTOR_BYTES", both_bytes)
    for _ in range(3):
        for layer in layers:
            layer.a[0][1] *= 2
            linear(wrapper, layer, x)
    assert all(factors.is_kept for factors in layouts(wrapper))
    third = make_layer([3, 2], 10, SLICES, max_rank=4, seed=2)
    result = linear(wrapper, third, x)
    wanted = expected_output(torch.zeros_like(result), x, third, [0, 1])
    torch.testing.assert_close(result.to(torch.float64), wanted, rtol=1e-5, atol=1e-5)
    assert [factors.is_kept for factors in layouts(wrapper)] == [True, True, False]
