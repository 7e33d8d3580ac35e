"""Keeps base rows free of adapters in mixed batches: the least change to vLLM's own CPU LoRA path.

Defect (vLLM 0.32.0, CPU): a row without an adapter carries slot index -1.
`vllm/lora/ops/torch_ops/lora_ops.py` selects weights by `lora_b_weights[lora_indices_tensor]`, where -1 wraps
round to the *last* slot, in all six operations. `PunicaWrapperCPU` asks `no_lora` only, which is true when
every row is -1, and not at all in the decode and logits branches. So in a batch of base and adapter requests
the base rows get the last slot's adapter, and where that adapter is on `lm_head`, base requests alone get its
logits too. The GPU kernels leave a row at -1 untouched.

Reproduction: `lora_probe.broken_operations(lora_probe.STOCK_WRAPPER)`; in a running engine,
docs/upstream-defects.md.

Mend: each operation sees only the rows that have an adapter, and writes only those; what they become is what
vLLM makes of them. `apply_lora_full_linear` needs nothing: it selects by index >= 0 after its product.

Can go when the probe finds nothing on the vLLM in use; the plugin asks it for unverified versions.
Importing this module imports torch and vLLM: only vLLM's worker does, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from vllm.lora.ops.torch_ops import bgmv_expand, bgmv_shrink
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from serve.engine.cpu.logit_rows import logit_slots


@dataclass(frozen=True, slots=True)
class AdapterRows:
    """The rows of a batch that have an adapter."""

    rows: torch.Tensor | None  # (num_adapter_rows,) int64; None: all of them
    slots: torch.Tensor  # (num_adapter_rows,) int64, each >= 0

    @classmethod
    def of(cls, slots: torch.Tensor) -> AdapterRows:
        """From one slot per row, -1 for the base model."""
        has_adapter = slots >= 0
        if bool(has_adapter.all()):
            return cls(None, slots.clone())
        rows = has_adapter.nonzero().squeeze(1)
        return cls(rows, slots[rows])

    @property
    def is_empty(self) -> bool:
        return bool(self.slots.numel() == 0)


class IsolatedPunicaWrapper(PunicaWrapperCPU):  # type: ignore[misc]
    """vLLM's CPU LoRA operations, each on the rows that have an adapter."""

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Take the mapping of tokens and samples to slots for the next steps."""
        super().update_metadata(*args, **kwargs)
        self.__dict__.pop("_token_rows", None)

    @cached_property
    def _token_rows(self) -> AdapterRows:
        return AdapterRows.of(self.token_lora_indices)

    def _shrink_prefill(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        _shrink(y, x, w_t_all, self._token_rows, scale)

    def _shrink_decode(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        _shrink(y, x, w_t_all, self._token_rows, scale)

    def _expand_prefill(
        self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, add_inputs: bool
    ) -> None:
        _expand(y, x, w_t_all, self._token_rows, add_inputs)

    def _expand_decode(
        self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, add_inputs: bool
    ) -> None:
        _expand(y, x, w_t_all, self._token_rows, add_inputs)

    def _expand_slice_prefill(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool,
    ) -> None:
        _expand_slice(y, x, w_t_all, self._token_rows, y_offset, y_slice_size, add_inputs)

    def _expand_slice_decode(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool,
    ) -> None:
        _expand_slice(y, x, w_t_all, self._token_rows, y_offset, y_slice_size, add_inputs)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **_: Any,
    ) -> None:
        """y += x @ A @ B * scale per row: y (num_rows, vocabulary), x (num_rows, hidden_size)."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        adapter_rows = AdapterRows.of(logit_slots(x, self.token_lora_indices, self.sampler_indices))
        if adapter_rows.is_empty:
            return
        if buffer is None:
            buffer = x.new_zeros((x.shape[0], lora_b_stacked.shape[-1]), dtype=torch.float32)
        _shrink(buffer, x, lora_a_stacked, adapter_rows, scale)
        _expand(y, buffer, lora_b_stacked, adapter_rows, True)


def _shrink(y: torch.Tensor, x: torch.Tensor, weights: torch.Tensor, at: AdapterRows, scale: float) -> None:
    if at.is_empty:
        return
    if at.rows is None:
        bgmv_shrink(x, weights, y, at.slots, scale)
        return
    part = y[at.rows]
    bgmv_shrink(x[at.rows], weights, part, at.slots, scale)
    y[at.rows] = part


def _expand(
    y: torch.Tensor, x: torch.Tensor, weights: torch.Tensor, at: AdapterRows, add_inputs: bool
) -> None:
    if at.is_empty:
        return
    if at.rows is None:
        bgmv_expand(x, weights, y, at.slots, add_inputs)
        return
    part = y[at.rows]
    bgmv_expand(x[at.rows], weights, part, at.slots, add_inputs)
    y[at.rows] = part


def _expand_slice(
    y: torch.Tensor,
    x: torch.Tensor,
    weights: torch.Tensor,
    at: AdapterRows,
    offset: int,
    size: int,
    add_inputs: bool,
) -> None:
    _expand(y[:, offset : offset + size], x, weights, at, add_inputs)
