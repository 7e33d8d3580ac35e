"""A batch of rows with adapters for the LoRA wrappers, and what each row must become, computed row by row."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch


@dataclass(frozen=True)
class LoraLayer:
    """Stacked weights of one layer as vLLM lays them out, zero-padded to the largest rank."""

    a: tuple[torch.Tensor, ...]  # each (num_slots, 1, max_rank, in_size)
    b: tuple[torch.Tensor, ...]  # each (num_slots, 1, out_size, max_rank)
    output_slices: tuple[int, ...]

    @property
    def num_slots(self) -> int:
        return int(self.a[0].shape[0])

    @property
    def in_size(self) -> int:
        return int(self.a[0].shape[-1])


def make_layer(
    ranks: list[int],
    in_size: int,
    output_slices: tuple[int, ...],
    max_rank: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> LoraLayer:
    """One layer with `len(ranks)` slots; rank 0 leaves the slot all zero."""
    generator = torch.Generator().manual_seed(seed)
    a = tuple(torch.zeros(len(ranks), 1, max_rank, in_size, dtype=dtype) for _ in output_slices)
    b = tuple(torch.zeros(len(ranks), 1, size, max_rank, dtype=dtype) for size in output_slices)
    for slot, rank in enumerate(ranks):
        for i, size in enumerate(output_slices):
            a[i][slot, 0, :rank] = torch.randn(rank, in_size, generator=generator).to(dtype) / in_size**0.5
            b[i][slot, 0, :, :rank] = torch.randn(size, rank, generator=generator).to(dtype)
    return LoraLayer(a, b, output_slices)


def make_wrapper(wrapper_class: type, slots: list[int], num_slots: int, is_prefill: bool = True) -> Any:
    """A wrapper whose next step has one token per entry of `slots` (-1: base), each its own request."""
    wrapper = wrapper_class(max(len(slots), 1) + 8, len(slots) + 8, device=torch.device("cpu"))
    set_slots(wrapper, slots, num_slots, is_prefill)
    return wrapper


def set_slots(wrapper: Any, slots: list[int], num_slots: int, is_prefill: bool = True) -> None:
    """Give an existing wrapper its next step."""
    adapter_ids = tuple(slot + 1 for slot in slots)
    wrapper.update_metadata(
        SimpleNamespace(index_mapping=adapter_ids, prompt_mapping=adapter_ids, is_prefill=is_prefill),
        list(range(1, num_slots + 1)),
        num_slots + 1,
        64,
    )


def expected_output(y: torch.Tensor, x: torch.Tensor, layer: LoraLayer, slots: list[int]) -> torch.Tensor:
    """y + x @ A @ B for each row with that row's adapter alone, in float64."""
    result = y.to(torch.float64)
    for row, slot in enumerate(slots):
        if slot < 0:
            continue
        offset = 0
        for a, b, size in zip(layer.a, layer.b, layer.output_slices, strict=True):
            shrunk = a[slot, 0].to(torch.float64) @ x[row].to(torch.float64)
            result[row, offset : offset + size] += b[slot, 0].to(torch.float64) @ shrunk
            offset += size
    return result
