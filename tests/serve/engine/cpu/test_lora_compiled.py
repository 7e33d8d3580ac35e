"""The wrapper round the compiled operator: when it is used, and what takes its place."""

from __future__ import annotations

import pytest
import torch

from serve.engine.cpu.lora_compiled import CompiledPunicaWrapper
from serve.engine.cpu.lora_grouped import GroupedPunicaWrapper
from serve.engine.cpu.lowbit import library
from tests.serve.engine.cpu.lora_batch import LoraLayer, expected_output, make_layer, make_wrapper

SLICES = (18, 6, 6)
SLOTS = [0, -1, 2, 1, 2, 2, 0]


@pytest.fixture
def native() -> None:
    if library.kernels().kind != library.NATIVE:
        pytest.skip(library.kernels().reason)


def linear(wrapper: GroupedPunicaWrapper, layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    y = torch.ones(x.shape[0], sum(layer.output_slices), dtype=x.dtype)
    wrapper.add_lora_linear(y, x, layer.a, layer.b, 1.0, layer.output_slices)
    return y


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neither_linear_nor_logits_ask_torch_operators_for_products(monkeypatch, dtype):
    def unwanted(*_: object) -> None:
        raise AssertionError("the torch path was taken")

    monkeypatch.setattr(GroupedPunicaWrapper, "_factors_of", unwanted)
    layer = make_layer([4, 2, 6], 10, SLICES, max_rank=6, dtype=dtype)
    wrapper = make_wrapper(CompiledPunicaWrapper, SLOTS, layer.num_slots)
    x = torch.randn(len(SLOTS), 10).to(dtype)
    assert not torch.equal(linear(wrapper, layer, x), torch.ones(len(SLOTS), sum(SLICES), dtype=dtype))
    logits = torch.zeros(len(SLOTS), SLICES[0], dtype=dtype)
    wrapper.add_lora_logits(logits, x, layer.a[0], layer.b[0], 1.0)
    assert logits.any()


def test_without_a_library_the_grouped_torch_operators_do_the_work(monkeypatch):
    monkeypatch.setattr(library, "kernels", lambda: library.Kernels(library.TORCH, "none was compiled"))
    layer = make_layer([4, 2, 6], 10, SLICES, max_rank=6)
    x = torch.randn(len(SLOTS), 10)
    results = [
        linear(make_wrapper(wrapper_class, SLOTS, layer.num_slots), layer, x)
        for wrapper_class in (CompiledPunicaWrapper, GroupedPunicaWrapper)
    ]
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_type_that_the_operator_has_not_is_left_to_torch(dtype):
    layer = make_layer([4, 2, 6], 10, SLICES, max_rank=6, dtype=dtype)
    x = torch.randn(len(SLOTS), 10).to(dtype)
    results = [
        linear(make_wrapper(wrapper_class, SLOTS, layer.num_slots), layer, x)
        for wrapper_class in (CompiledPunicaWrapper, GroupedPunicaWrapper)
    ]
    assert torch.equal(*results)


@pytest.mark.usefixtures("native")
def test_rows_that_do_not_match_the_plan_are_left_to_vllms_own_way(monkeypatch):
    asked = []
    monkeypatch.setattr(
        GroupedPunicaWrapper, "add_lora_linear", lambda _self, y, *_: asked.append(y.shape[0])
    )
    layer = make_layer([4, 2, 6], 10, SLICES, max_rank=6)
    wrapper = make_wrapper(CompiledPunicaWrapper, SLOTS, layer.num_slots)
    linear(wrapper, layer, torch.randn(3, 10))
    assert asked == [3]


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("num_columns", [12, 18, 20])
def test_logits_may_be_wider_or_narrower_than_the_adapters_vocabulary(num_columns):
    layer = make_layer([4, 2, 6], 10, SLICES[:1], max_rank=6)
    wrapper = make_wrapper(CompiledPunicaWrapper, SLOTS, layer.num_slots)
    x, logits = torch.randn(len(SLOTS), 10), torch.zeros(len(SLOTS), num_columns)
    wrapper.add_lora_logits(logits, x, layer.a[0], layer.b[0], 1.0)
    width = min(num_columns, SLICES[0])
    narrow = LoraLayer(layer.a, (layer.b[0][:, :, :width],), (width,))
    exact = expected_output(torch.zeros(len(SLOTS), width), x, narrow, SLOTS)
    torch.testing.assert_close(logits[:, :width].double(), exact, rtol=1e-5, atol=1e-5)
    assert not logits[:, width:].any()
