"""The CPU LoRA wrappers against a row-by-row reference and against vLLM's own, for every branch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serve.engine.cpu import lora_probe
from serve.engine.cpu.lora_compiled import CompiledPunicaWrapper
from serve.engine.cpu.lora_grouped import GroupedPunicaWrapper
from serve.engine.cpu.lora_isolation import IsolatedPunicaWrapper
from tests.serve.engine.cpu.lora_batch import LoraLayer, expected_output, make_layer, make_wrapper

WRAPPERS = [IsolatedPunicaWrapper, GroupedPunicaWrapper, CompiledPunicaWrapper]
each_wrapper = pytest.mark.parametrize("wrapper_class", WRAPPERS)
each_phase = pytest.mark.parametrize("is_prefill", [True, False], ids=["prefill", "decode"])

QKV = (18, 6, 6)
GATE_UP = (16, 16)
SLICES = [(12,), QKV, GATE_UP]


@st.composite
def batches(draw: st.DrawFn) -> tuple[LoraLayer, list[int]]:
    """A layer of up to five adapters of ranks 0-6 and a batch of up to 40 rows, -1 among them."""
    ranks = draw(st.lists(st.integers(0, 6), min_size=1, max_size=5))
    slots = draw(st.lists(st.integers(-1, len(ranks) - 1), min_size=1, max_size=40))
    layer = make_layer(ranks, 10, draw(st.sampled_from(SLICES)), max_rank=6, seed=draw(st.integers(0, 99)))
    return layer, slots


def add_linear(wrapper_class: type, layer: LoraLayer, slots: list[int], is_prefill: bool):
    wrapper = make_wrapper(wrapper_class, slots, layer.num_slots, is_prefill)
    generator = torch.Generator().manual_seed(7)
    dtype = layer.a[0].dtype
    x = torch.randn(len(slots), layer.in_size, generator=generator).to(dtype)
    before = torch.randn(len(slots), sum(layer.output_slices), generator=generator).to(dtype)
    y = before.clone()
    wrapper.add_lora_linear(y, x, layer.a, layer.b, 1.0, layer.output_slices)
    return y, before, x


def test_stock_vllm_still_mixes_adapters_into_base_rows():
    broken = lora_probe.broken_operations(lora_probe.STOCK_WRAPPER)
    assert broken, "vLLM keeps base rows apart by itself now: remove serve/engine/cpu/lora_isolation.py"


@pytest.mark.parametrize("wrapper_class", WRAPPERS, ids=lambda c: c.__name__)
def test_probe_finds_nothing_wrong_with_a_mended_wrapper(wrapper_class):
    assert lora_probe.broken_operations(f"{wrapper_class.__module__}.{wrapper_class.__qualname__}") == ()


@each_wrapper
@each_phase
@given(batch=batches())
@settings(max_examples=60, deadline=None)
def test_linear_gives_each_row_its_own_adapter_and_base_rows_none(wrapper_class, is_prefill, batch):
    layer, slots = batch
    y, before, x = add_linear(wrapper_class, layer, slots, is_prefill)
    expected = expected_output(before, x, layer, slots)
    torch.testing.assert_close(y.to(torch.float64), expected, rtol=1e-5, atol=1e-5)
    base_rows = [row for row, slot in enumerate(slots) if slot < 0]
    assert torch.equal(y[base_rows], before[base_rows])


@each_wrapper
@each_phase
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_equals_vllm_where_every_row_has_an_adapter(wrapper_class, is_prefill, dtype):
    layer = make_layer([4, 2, 6], 10, QKV, max_rank=6, dtype=dtype)
    slots = [0, 0, 1, 2, 2, 2, 0, 1]
    y, _, _ = add_linear(wrapper_class, layer, slots, is_prefill)
    stock, _, _ = add_linear(PunicaWrapperCPU, layer, slots, is_prefill)
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(y, stock, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ranks", [(4, 2), (64, 16)])
@pytest.mark.parametrize(
    "slots", [[0] * 70 + [1] * 40 + [-1] * 5 + [0, 1], [1] * 33 + [-1] + [0] * 100], ids=["mixed", "prompts"]
)
def test_prompts_in_bfloat16_are_as_near_to_the_exact_result_as_vllms(ranks, slots):
    layer = make_layer(list(ranks), 48, QKV, max_rank=64, dtype=torch.bfloat16)
    errors = []
    for wrapper_class in (GroupedPunicaWrapper, CompiledPunicaWrapper, IsolatedPunicaWrapper):
        y, before, x = add_linear(wrapper_class, layer, slots, is_prefill=True)
        exact = expected_output(before, x, layer, slots)
        errors.append(float((y.to(torch.float64) - exact).norm() / exact.norm()))
    *ours, vllms = errors
    assert max(ours) <= 1.5 * vllms


@pytest.mark.parametrize("num_slots", [1, 2, 9])
@each_phase
@pytest.mark.parametrize("wrapper_class", [GroupedPunicaWrapper, CompiledPunicaWrapper])
def test_a_wide_bfloat16_batch_of_neighbours_that_differ_is_rounded_once(
    wrapper_class, num_slots, is_prefill
):
    """Nine slots are too many for one block-diagonal B."""
    layer = make_layer([8] * num_slots, 48, QKV, max_rank=8, dtype=torch.bfloat16)
    slots = [row % (num_slots + 1) - 1 for row in range(40 * (num_slots + 1))]
    y, before, x = add_linear(wrapper_class, layer, slots, is_prefill)
    exact = expected_output(before, x, layer, slots)
    half_a_step = 2.0**-8 * exact.abs()  # of bfloat16's eight bits
    assert ((y.to(torch.float64) - exact).abs() <= half_a_step + 1e-5).all()


@each_wrapper
@each_phase
@given(batch=batches())
@settings(max_examples=40, deadline=None)
def test_logits_give_each_row_its_own_adapter_and_base_rows_none(wrapper_class, is_prefill, batch):
    layer, slots = batch
    layer = LoraLayer(layer.a[:1], layer.b[:1], layer.output_slices[:1])
    wrapper = make_wrapper(wrapper_class, slots, layer.num_slots, is_prefill)
    x, before = torch.randn(len(slots), layer.in_size), torch.randn(len(slots), layer.output_slices[0])
    y = before.clone()
    wrapper.add_lora_logits(y, x, layer.a[0], layer.b[0], 1.0)
    torch.testing.assert_close(
        y.to(torch.float64), expected_output(before, x, layer, slots), rtol=1e-5, atol=1e-5
    )


@each_wrapper
@each_phase
@given(batch=batches())
@settings(max_examples=40, deadline=None)
def test_embedding_gives_each_row_its_own_adapter_and_base_rows_none(wrapper_class, is_prefill, batch):
    layer, slots = batch
    b, size = layer.b[0], layer.output_slices[0]
    wrapper = make_wrapper(wrapper_class, slots, layer.num_slots, is_prefill)
    x, before = torch.randn(len(slots), b.shape[-1]), torch.randn(len(slots), size)
    y = before.clone()
    wrapper.add_lora_embedding(y, x, b, add_input=True)
    expected = before.clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            expected[row] += b[slot, 0] @ x[row]
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrapper_class", [GroupedPunicaWrapper, CompiledPunicaWrapper])
def test_an_embedding_on_which_no_adapter_is_costs_no_product(wrapper_class, monkeypatch):
    products = []
    monkeypatch.setattr(PunicaWrapperCPU, "add_lora_embedding", lambda *given, **_: products.append(given))
    wrapper = make_wrapper(wrapper_class, [0, -1, 1], num_slots=2)
    x, b = torch.zeros(3, 4), torch.randn(2, 1, 6, 4)
    wrapper.add_lora_embedding(torch.zeros(3, 6), x, b, add_input=True)
    assert not products
    x[2, 1] = 1
    wrapper.add_lora_embedding(torch.zeros(3, 6), x, b, add_input=True)
    assert len(products) == 1


@each_wrapper
def test_full_linear_replaces_only_rows_whose_adapter_has_one(wrapper_class):
    wrapper = make_wrapper(wrapper_class, [0, -1, 1], num_slots=2)
    weight, bias = torch.randn(2, 1, 3, 5), torch.randn(2, 3)
    x, y = torch.randn(3, 5), torch.zeros(3, 3)
    wrapper.apply_lora_full_linear(y, x, weight, bias, torch.tensor([True, False]))
    torch.testing.assert_close(y[0], weight[0, 0] @ x[0] + bias[0])
    assert torch.equal(y[1:], torch.zeros(2, 3))


@each_wrapper
def test_an_adapter_with_infinite_weights_reaches_no_other_row(wrapper_class):
    layer = make_layer([2, 2, 2], 10, QKV, max_rank=2)
    layer.a[0][2] = float("inf")
    layer.b[1][2] = float("nan")
    slots = [0, -1, 2, 1]
    y, before, x = add_linear(wrapper_class, layer, slots, is_prefill=True)
    for row in (0, 1, 3):
        expected = expected_output(before[row : row + 1], x[row : row + 1], layer, slots[row : row + 1])
        torch.testing.assert_close(y[row : row + 1].to(torch.float64), expected, rtol=1e-5, atol=1e-5)


@each_wrapper
def test_shrink_and_expand_alone_keep_rows_apart(wrapper_class):
    """The fully sharded layers call the two halves themselves."""
    layer = make_layer([2, 3], 10, QKV, max_rank=3)
    slots = [-1, 0, 1, -1, 0]
    wrapper = make_wrapper(wrapper_class, slots, layer.num_slots)
    x, before = torch.randn(5, 10), torch.randn(5, sum(QKV))
    buffer = torch.zeros(len(QKV), 5, 3)
    y = before.clone()
    wrapper.add_shrink(buffer, x, layer.a, 1.0)
    wrapper.add_expand(y, buffer, layer.b, QKV, offset_start=0, add_input=True)
    torch.testing.assert_close(
        y.to(torch.float64), expected_output(before, x, layer, slots), rtol=1e-5, atol=1e-5
    )


@each_wrapper
def test_prompt_logit_rows_take_the_adapter_of_their_own_tokens(wrapper_class):
    layer = make_layer([2, 2], 10, (12,), max_rank=2)
    token_slots = [-1, -1, 1, 1, 1, 0, 0]  # three requests, one sample each
    wrapper = make_wrapper(wrapper_class, token_slots, layer.num_slots)
    wrapper._sampler_indices[:3] = torch.tensor([-1, 1, 0])
    wrapper.indices_len[1] = 3
    hidden = torch.randn(7, 10)
    for rows in (slice(0, 1), slice(2, 4), slice(5, 6)):
        x = hidden[rows]
        y = torch.zeros(x.shape[0], 12)
        wrapper.add_lora_logits(y, x, layer.a[0], layer.b[0], 1.0)
        expected = expected_output(torch.zeros_like(y), x, layer, token_slots[rows])
        torch.testing.assert_close(y.to(torch.float64), expected, rtol=1e-5, atol=1e-5)


@each_wrapper
def test_logit_rows_of_unknown_origin_are_refused_while_an_adapter_is_in_the_batch(wrapper_class):
    layer = make_layer([2], 10, (12,), max_rank=2)
    wrapper = make_wrapper(wrapper_class, [0, -1, 0], layer.num_slots)
    with pytest.raises(ValueError, match="2 rows of hidden states are neither"):
        wrapper.add_lora_logits(torch.zeros(2, 12), torch.randn(2, 10), layer.a[0], layer.b[0], 1.0)
