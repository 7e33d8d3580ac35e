"""LoRA on CPU as one compiled operator per layer: both products and the addition.

Defect (vLLM 0.32.0, CPU; speed): that of `lora_grouped`. Its mend costs ten operator calls a layer, most of them
conversions between bfloat16 and float32: 58 us for each of 120 layers with one row, of which arithmetic is two.

Here a layer is one call of `torch.ops.hotswap_lowbit.lora_add` (lowbit/kernels/lora.h), with the rows grouped by
slot once per step in C++. Factors are read in the model's own type, sums are float32, and the output is rounded
once. Base rows are never touched. A row's result is bit for bit the same whichever rows stand beside it.

Where the library was not compiled, and for other types than float32 and bfloat16, `lora_grouped` does the work.

Can go when vLLM has a compiled LoRA operator for CPUs.
Importing this module imports torch and vLLM: only vLLM's worker does, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from serve.engine.cpu.logit_rows import logit_slots
from serve.engine.cpu.lora_grouped import GroupedPunicaWrapper
from serve.engine.cpu.lowbit import library
from serve.engine.cpu.packed_factors import ADDED, DTYPES, STALE, PackedFactors


class CompiledPunicaWrapper(GroupedPunicaWrapper):
    """The CPU LoRA operations as compiled operators."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_native = library.kernels().kind == library.NATIVE
        self._add = torch.ops.hotswap_lowbit.lora_add.default if self._is_native else None
        self._packed: dict[int, tuple[object, PackedFactors]] = {}  # by identity of the layer's stacks of A
        self._plan: torch.Tensor | None = None  # None: no adapter in this step
        self._slots: tuple[int, ...] = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Take the mapping of tokens and samples to slots for the next steps."""
        super().update_metadata(*args, **kwargs)
        self.__dict__.pop("_sampler_rows", None)
        if self._is_native:
            self._plan, self._slots = _plan_of(self.token_lora_indices)

    @cached_property
    def _sampler_rows(self) -> tuple[torch.Tensor | None, tuple[int, ...]]:
        return _plan_of(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Sequence[torch.Tensor],
        lora_b_stacked: Sequence[torch.Tensor],
        scale: float,
        output_slices: Sequence[int],
        **kwargs: Any,
    ) -> None:
        """y += x @ A @ B * scale per row: y (num_tokens, sum of output_slices), x (num_tokens, in_size)."""
        plan = self._plan
        if plan is not None and not kwargs:
            factors = self._packed_of(lora_a_stacked, lora_a_stacked, lora_b_stacked, output_slices)
            if factors is not None and self._added(y, x, factors, plan, self._slots, scale):
                return
        elif plan is None and self._is_native:
            return
        super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, **kwargs)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **kwargs: Any,
    ) -> None:
        """y += x @ A @ B * scale per row: y (num_rows, vocabulary), x (num_rows, hidden_size)."""
        if self._is_native:
            if self._plan is None:
                return
            num_columns = min(y.shape[-1], lora_b_stacked.shape[2])  # vLLM may pad either
            factors = self._packed_of(lora_a_stacked, (lora_a_stacked,), (lora_b_stacked,), (num_columns,))
            if factors is not None:
                if not factors.prepare(self._slots):
                    return
                rows = x.view(-1, x.shape[-1])
                plan, slots = self._logit_plan(rows)
                if plan is None:
                    return
                if self._added(y.view(-1, y.shape[-1]), rows, factors, plan, slots, scale):
                    return
        super().add_lora_logits(y, x, lora_a_stacked, lora_b_stacked, scale, **kwargs)

    def _logit_plan(self, rows: torch.Tensor) -> tuple[torch.Tensor | None, tuple[int, ...]]:
        row_slots = logit_slots(rows, self.token_lora_indices, self.sampler_indices)
        if row_slots.data_ptr() == self._sampler_indices.data_ptr():
            return self._sampler_rows
        return _plan_of(row_slots)

    def _added(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        factors: PackedFactors,
        plan: torch.Tensor,
        slots: tuple[int, ...],
        scale: float,
    ) -> bool:
        """Is it done? Else these shapes or types are not the operator's."""
        outcome = self._add(y, x, factors.address, plan, scale)  # type: ignore[misc]
        if outcome == STALE:
            factors.prepare(slots)
            outcome = self._add(y, x, factors.address, plan, scale)  # type: ignore[misc]
            if not factors.is_kept:
                self._keep(factors)
        return bool(outcome == ADDED)

    def _packed_of(
        self,
        key: object,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> PackedFactors | None:
        """Factors of the layer whose stacks of A are `key`; None where its type is not the operator's."""
        known = self._packed.get(id(key))
        if known is not None:
            return known[1]
        if any(stack.dtype not in DTYPES for stack in (*a_stacked, *b_stacked)):
            return None
        factors = PackedFactors(a_stacked, b_stacked, output_slices)
        self._packed[id(key)] = (key, factors)  # the key is held, so that no other object gets its identity
        return factors


def _plan_of(slots: torch.Tensor) -> tuple[torch.Tensor | None, tuple[int, ...]]:
    """The operator's plan for one slot per row (-1: none), and the slots in use; no plan where there are none."""
    plan = torch.ops.hotswap_lowbit.lora_plan.default(slots)
    pieces = int(plan[1])
    if not pieces:
        return None, ()
    return plan, tuple(dict.fromkeys(plan[2 : 2 + 3 * pieces : 3].tolist()))
