"""LoRA on CPU as a few dense products per layer, in place of vLLM's gather of one weight copy per row.

Defect (vLLM 0.32.0, CPU; speed): for every layer and slice `vllm/lora/ops/torch_ops/lora_ops.py` copies A,
then B, once *per token*, converts the copies and multiplies them by one row each. `add_lora_logits` does so
with (tokens, vocabulary, rank) elements in every step, base-only steps included.

Here the rows are grouped by slot once per step (`slot_plan`), each layer's factors are laid out once per
adapter change (`slot_factors`), and a layer costs two products for a run of rows with one adapter, or two
batched products for all adapters together. Rows without an adapter are never touched; no row sees another's
adapter, so one adapter's infinities stay its own. Nothing is done where no active adapter has weights.

Results equal vLLM's own within float32 rounding. With a bfloat16 model all but prompts are computed in float32
and rounded once, so they are nearer to the exact result: small bfloat16 products cost more than they save, and
for the first of each shape, which changes with whoever is in the batch, oneDNN generates code.

Can go when vLLM's CPU operators group rows by adapter.
Importing this module imports torch and vLLM: only vLLM's worker does, by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from serve.engine.cpu.logit_rows import logit_slots
from serve.engine.cpu.lora_isolation import IsolatedPunicaWrapper
from serve.engine.cpu.slot_factors import SlotFactors
from serve.engine.cpu.slot_layout import SlotLayout
from serve.engine.cpu.slot_plan import SlotGroup, SlotPlan, plan_rows

# From this many rows of a run on, a 16-bit model's own products are faster than float32 ones, also for a length
# that was not there before (benchmarks/LOG.md, "small products in bfloat16").
MIN_NATIVE_ROWS = 32
# Memory for laid-out factors; a layer that comes later has them laid out anew in every step.
MAX_FACTOR_BYTES = 2 * 1024**3


class GroupedPunicaWrapper(IsolatedPunicaWrapper):
    """The CPU LoRA operations on rows grouped by adapter slot."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._factors: dict[int, SlotFactors] = {}  # by address of the layer's first A
        self._kept_bytes = 0  # of all laid-out factors

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Take the mapping of tokens and samples to slots for the next steps."""
        super().update_metadata(*args, **kwargs)
        for plan in ("_token_plan", "_sampler_plan"):
            self.__dict__.pop(plan, None)

    @cached_property
    def _token_plan(self) -> SlotPlan:
        return plan_rows(self.token_lora_indices.tolist())

    @cached_property
    def _sampler_plan(self) -> SlotPlan:
        return plan_rows(self.sampler_indices.tolist())

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
        plan = self._token_plan
        if not plan.slots:
            return
        if x.shape[0] != plan.num_rows or kwargs:
            super().add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, **kwargs)
            return
        factors = self._factors_of(lora_a_stacked, lora_b_stacked, output_slices)
        if factors.prepare(plan.slots):
            self._add_delta(y, x, factors, plan, scale)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **_: Any,
    ) -> None:
        """y += x @ A @ B * scale per row: y (num_rows, vocabulary), x (num_rows, hidden_size)."""
        slots = self._token_plan.slots
        if not slots:
            return
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        num_columns = min(y.shape[1], lora_b_stacked.shape[2])  # vLLM may pad either
        factors = self._factors_of((lora_a_stacked,), (lora_b_stacked,), (num_columns,))
        if not factors.prepare(slots):
            return
        row_slots = logit_slots(x, self.token_lora_indices, self.sampler_indices)
        if row_slots.data_ptr() == self._sampler_indices.data_ptr():
            plan = self._sampler_plan
        else:
            plan = plan_rows(row_slots.tolist())
        if plan.slots:
            self._add_delta(y[:, :num_columns], x, factors, plan, scale)

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **kwargs: Any,
    ) -> None:
        """y += x @ B per row: y (num_tokens, embedding_size), x (num_tokens, max_rank), A's rows already.

        Hardly an adapter is on the embedding: where all of A's rows are zero nothing is multiplied.
        """
        if bool(x.any()) and self._token_plan.slots:
            super().add_lora_embedding(y, x, lora_b_stacked, add_inputs, **kwargs)

    def _factors_of(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> SlotFactors:
        key = a_stacked[0].data_ptr()
        factors = self._factors.get(key)
        if factors is None or not factors.serves(a_stacked, b_stacked):
            self._kept_bytes -= factors.kept_bytes if factors is not None else 0
            factors = self._factors[key] = SlotFactors(a_stacked, b_stacked, output_slices)
        return factors

    def _add_delta(
        self, y: torch.Tensor, x: torch.Tensor, factors: SlotFactors, plan: SlotPlan, scale: float
    ) -> None:
        add_delta(y, x, factors, plan, scale)
        if not factors.is_kept:
            self._keep(factors)

    def _keep(self, factors: SlotLayout) -> None:
        """Account for what was laid out; beyond the limit it is forgotten at once."""
        others = self._kept_bytes - factors.kept_bytes
        factors.is_kept = others + factors.size_bytes <= MAX_FACTOR_BYTES
        if not factors.is_kept:
            factors.release()
        factors.kept_bytes = factors.size_bytes
        self._kept_bytes = others + factors.kept_bytes


def add_delta(y: torch.Tensor, x: torch.Tensor, factors: SlotFactors, plan: SlotPlan, scale: float) -> None:
    """y += x @ a[slot] @ b[slot] * scale in place, row by row of the plan."""
    for segment in plan.segments:
        rows = slice(segment.first_row, segment.first_row + segment.num_rows)
        is_native = x.dtype == y.dtype and segment.num_rows >= MIN_NATIVE_ROWS
        dtype = x.dtype if is_native else torch.float32
        hidden = x[rows].to(dtype) @ factors.a[segment.slot].to(dtype)
        if scale != 1.0:
            hidden *= scale
        _add_expanded(y[rows], hidden, factors, factors.b[segment.slot].to(dtype))
    if plan.groups:
        _add_groups(y, x, factors, plan, scale)


def _add_expanded(y: torch.Tensor, hidden: torch.Tensor, factors: SlotFactors, b: torch.Tensor) -> None:
    if factors.is_block_diagonal or len(factors.columns) == 1:
        parts = [(y[:, : factors.out_size], hidden, b)]
    else:
        rank = factors.rank
        parts = [
            (y[:, columns], hidden[:, i * rank : (i + 1) * rank], b[:, columns])
            for i, columns in enumerate(factors.columns)
        ]
    for target, left, right in parts:
        if target.dtype == left.dtype:
            target.addmm_(left, right)
        else:
            target.add_(left @ right)


def _add_groups(y: torch.Tensor, x: torch.Tensor, factors: SlotFactors, plan: SlotPlan, scale: float) -> None:
    gathered = x.index_select(0, plan.gathered_rows)
    num_gathered = gathered.shape[0]
    adds_to_every_row = plan.all_positions is not None
    delta = torch.empty(num_gathered + adds_to_every_row, factors.out_size, dtype=torch.float32)
    if adds_to_every_row:
        delta[num_gathered].zero_()
    first = 0
    for group in plan.groups:
        rows = slice(first, first + group.num_rows)
        _expand_group(delta[rows], gathered[rows].float(), factors, group)
        first += group.num_rows
    if scale != 1.0:
        delta *= scale
    if adds_to_every_row:
        y.add_(delta.index_select(0, plan.all_positions))
    else:
        y.index_add_(0, plan.loose_rows, delta.index_select(0, plan.positions).to(y.dtype))


def _expand_group(delta: torch.Tensor, x: torch.Tensor, factors: SlotFactors, group: SlotGroup) -> None:
    """delta[:] = x @ a @ b for gathered rows: delta (num_rows, out_size), x (num_rows, in_size), both float32."""
    slots = slice(group.first_slot, group.first_slot + group.num_slots)
    by_slot = (group.num_slots, group.rows_per_slot, -1)
    hidden = torch.bmm(x.view(by_slot), factors.a[slots])
    b, delta = factors.b[slots], delta.view(by_slot)
    if factors.is_block_diagonal or len(factors.columns) == 1:
        torch.bmm(hidden, b, out=delta)
        return
    rank = factors.rank
    for i, columns in enumerate(factors.columns):
        delta[:, :, columns] = torch.bmm(hidden[:, :, i * rank : (i + 1) * rank], b[:, :, columns])
