"""The record of writes into slots: what was written is cleared, and a slot that nobody wrote stays laid out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.engine.cpu import slot_writes
from serve.engine.cpu.slot_factors import SlotFactors
from serve.engine.cpu.slot_writes import SlotWrites, record_of
from tests.serve.engine.cpu.lora_batch import make_layer

SLICES = (6, 3, 3)
MAX_RANK = 4


@pytest.fixture(scope="module")
def layers() -> Iterator[dict[str, Any]]:
    """vLLM's classes with the mend, which is taken off again."""
    with warnings.catch_warnings():  # importing vLLM's layers raises some of torch's
        warnings.simplefilter("ignore")
        from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
        from vllm.lora.layers.column_parallel_linear import (
            MergedColumnParallelLinearVariableSliceWithLoRA,
            MergedColumnParallelLinearWithLoRA,
        )
        from vllm.lora.layers.logits_processor import LogitsProcessorWithLoRA
        from vllm.lora.layers.vocab_parallel_embedding import VocabParallelEmbeddingWithLoRA
    classes: list[Any] = [
        BaseLinearLayerWithLoRA,
        MergedColumnParallelLinearWithLoRA,
        MergedColumnParallelLinearVariableSliceWithLoRA,
        LogitsProcessorWithLoRA,
        VocabParallelEmbeddingWithLoRA,
    ]
    before = [(one, dict(vars(one))) for one in classes]
    slot_writes.install()
    slot_writes.install()  # again changes nothing
    yield {one.__name__: one for one in classes}
    for one, names in before:
        for name in ("reset_lora", "set_lora"):
            if name in names:
                setattr(one, name, names[name])


def packed(layers: dict[str, Any], num_slots: int = 2, slices: tuple[int, ...] = SLICES) -> Any:
    """What vLLM's own set_lora and reset_lora need of a packed layer, and those two."""
    layer = make_layer([0] * num_slots, 10, slices, max_rank=MAX_RANK)
    base = layers["BaseLinearLayerWithLoRA"]
    layer_class = layers["MergedColumnParallelLinearWithLoRA"] if len(slices) > 1 else base
    view = SimpleNamespace(
        lora_a_stacked=layer.a, lora_b_stacked=layer.b, n_slices=len(slices), tp_size=1, slices=slices
    )
    view.reset_lora = lambda index: base.reset_lora(view, index)
    view.set_lora = lambda index, a, b: layer_class.set_lora(view, index, a, b)
    return view


def put(view: Any, slot: int, rank: int, value: float) -> None:
    a = [torch.full((rank, 10), value) for _ in view.slices]
    b = [torch.full((size, rank), value) for size in view.slices]
    view.set_lora(slot, a if len(a) > 1 else a[0], b if len(b) > 1 else b[0])


def holds(view: Any, slot: int, rank: int, value: float) -> bool:
    """Whether the slot holds that adapter and zeros beyond it."""
    found = []
    for a, b in zip(view.lora_a_stacked, view.lora_b_stacked, strict=True):
        found += [bool((a[slot, 0, :rank] == value).all()), bool((a[slot, 0, rank:] == 0).all())]
        found += [bool((b[slot, 0, :, :rank] == value).all()), bool((b[slot, 0, :, rank:] == 0).all())]
    return all(found)


VERBS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, MAX_RANK), st.sampled_from(["put", "reset", "elsewhere"])),
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(verbs=VERBS, slices=st.sampled_from([SLICES, (6,)]))
def test_a_slot_holds_what_was_put_there_last_and_laid_out_factors_follow(
    layers: dict[str, Any], verbs: list[tuple[int, int, str]], slices: tuple[int, ...]
) -> None:
    view = packed(layers, slices=slices)
    factors = SlotFactors(view.lora_a_stacked, view.lora_b_stacked, slices)
    held: dict[int, tuple[int, float]] = {0: (0, 0.0), 1: (0, 0.0)}
    for number, (slot, rank, verb) in enumerate(verbs, 1):
        if verb == "elsewhere":  # a write that nobody recorded, over everything that the slot holds
            for a, b in zip(view.lora_a_stacked, view.lora_b_stacked, strict=True):
                a[slot] = float(number)
                b[slot] = float(number)
            held[slot] = (MAX_RANK, float(number))
        elif verb == "put" and rank:
            put(view, slot, rank, float(number))
            held[slot] = (rank, float(number))
        else:
            view.reset_lora(slot)
            held[slot] = (0, 0.0)
        assert all(holds(view, *pair) for pair in ((one, *held[one]) for one in held))
        factors.prepare((0, 1))
        for one, (its_rank, value) in held.items():
            if factors.rank:
                wanted = its_rank * value * value  # of each element of A @ B
                product = factors.a[one][:, : factors.rank] @ factors.b[one][: factors.rank]
                assert torch.allclose(product[:, : slices[0]], torch.full((10, slices[0]), wanted))


def test_only_the_slot_that_was_written_is_laid_out_anew(
    layers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    view = packed(layers, num_slots=3)
    for slot in range(3):
        put(view, slot, 2, 1.0)
    factors = SlotFactors(view.lora_a_stacked, view.lora_b_stacked, SLICES)
    filled: list[int] = []
    fill = SlotFactors._fill

    def note(self: SlotFactors, slot: int) -> None:
        filled.append(slot)
        fill(self, slot)

    monkeypatch.setattr(SlotFactors, "_fill", note)
    factors.prepare((0, 1, 2))
    put(view, 1, 2, 3.0)
    factors.prepare((0, 1, 2))
    assert filled == [0, 1, 2, 1]
    view.lora_a_stacked[0][0] *= 2  # unrecorded
    factors.prepare((0, 1, 2))
    assert filled == [0, 1, 2, 1, 0, 1, 2]


def test_a_slot_that_is_zero_is_not_written(layers: dict[str, Any]) -> None:
    view = packed(layers)
    view.reset_lora(0)  # unknown until then: filled once
    before = [tensor._version for tensor in (*view.lora_a_stacked, *view.lora_b_stacked)]
    view.reset_lora(0)
    assert [tensor._version for tensor in (*view.lora_a_stacked, *view.lora_b_stacked)] == before


def test_the_tables_of_an_embedding_and_of_an_output_layer_are_cleared_whole_or_by_rank(
    layers: dict[str, Any],
) -> None:
    embedding = SimpleNamespace(
        lora_a_stacked=torch.zeros(2, 12, MAX_RANK), lora_b_stacked=torch.zeros(2, 1, 10, MAX_RANK)
    )
    output = SimpleNamespace(
        lora_a_stacked=torch.zeros(2, 1, MAX_RANK, 10), lora_b_stacked=torch.zeros(2, 1, 12, MAX_RANK)
    )
    shapes = {"VocabParallelEmbeddingWithLoRA": (12, 10), "LogitsProcessorWithLoRA": (10, 12)}
    for name, view in (("VocabParallelEmbeddingWithLoRA", embedding), ("LogitsProcessorWithLoRA", output)):
        layer_class = layers[name]
        view.reset_lora = lambda index, c=layer_class, v=view: c.reset_lora(v, index)
        inputs, outputs = shapes[name]
        for rank in (3, 1):
            layer_class.set_lora(view, 1, torch.ones(rank, inputs), torch.ones(outputs, rank))
            assert int(view.lora_a_stacked.sum()) == rank * inputs
            assert int(view.lora_b_stacked.sum()) == rank * outputs
        layer_class.reset_lora(view, 1)
        assert not view.lora_a_stacked.any()
        assert not view.lora_b_stacked.any()


def test_tensors_without_a_version_counter_are_written_as_vllm_does(layers: dict[str, Any]) -> None:
    with torch.inference_mode():
        view = packed(layers)
        put(view, 0, 3, 1.0)
        put(view, 0, 1, 2.0)
        assert holds(view, 0, 1, 2.0)
    assert record_of(view.lora_a_stacked[0]) is None


def test_a_write_that_fails_leaves_the_slot_unknown() -> None:
    tensor = torch.zeros(2, 1, 4, 10)
    record = SlotWrites([tensor])
    with record.writing(0, 2):
        tensor[0, 0, :2] = 1
    before = record.state(0)
    with pytest.raises(RuntimeError), record.writing(0, 1):
        tensor[0] = 1
        raise RuntimeError("half-way")
    assert record.rank(0) is None
    assert record.state(0) != before
    assert record.state(1) == (0, 0)
