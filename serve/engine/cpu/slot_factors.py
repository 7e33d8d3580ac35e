"""One LoRA layer's weights, laid out for dense products over the slots in use.

vLLM keeps, per slice of a packed layer (q, k, v), one A and one B for all slots, padded with zeros to the
largest rank it was started for. Here A of all slices lies side by side and B under each other (block-diagonal
while that is small), cut to the rank that the slots really have, in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from serve.engine.cpu.slot_layout import SlotLayout

# Up to this many slots B is kept block-diagonal: one product instead of one per slice, for some more memory.
MAX_BLOCK_DIAGONAL_SLOTS = 8


class SlotFactors(SlotLayout):
    """The laid-out factors of one layer: delta = x @ a[slot] @ b[slot]."""

    def __init__(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> None:
        """`a_stacked`: (slots, 1, max_rank, in) and `b_stacked`: (slots, 1, out, max_rank), per slice."""
        super().__init__(a_stacked, b_stacked)
        self.num_slots = int(a_stacked[0].shape[0])
        self.in_size = int(a_stacked[0].shape[-1])
        self.is_block_diagonal = len(a_stacked) > 1 and self.num_slots <= MAX_BLOCK_DIAGONAL_SLOTS
        offsets = [sum(output_slices[:i]) for i in range(len(output_slices) + 1)]
        self.columns = tuple(slice(lo, hi) for lo, hi in itertools.pairwise(offsets))
        self.out_size = offsets[-1]
        self._blank: set[int] = (
            set()
        )  # slots whose B was filled with zeros once: only its blocks are ever written
        self.rank = 0  # largest rank among the laid-out slots
        self.a = torch.empty(0)  # (num_slots, in_size, num_slices * rank), float32
        self.b = torch.empty(0)  # (num_slots, num_slices * rank or rank, out_size), float32

    @property
    def size_bytes(self) -> int:
        """Memory of the laid-out slots."""
        per_slot = (self.a.numel() + self.b.numel()) // max(self.num_slots, 1)
        return int(per_slot * 4 * len(self._laid_out))

    def release(self) -> None:
        """Forget what is laid out."""
        super().release()
        self._blank.clear()
        self.rank = 0
        self.a = self.b = torch.empty(0)

    def _lay_out(self, slots: list[int]) -> None:
        already = list(self._laid_out)
        self._laid_out.update((slot, self._true_rank(slot)) for slot in slots)
        rank = max(self._laid_out.values())
        if rank != self.rank or (rank and self.a.numel() == 0):
            self._allocate(rank)
            slots = [*already, *slots]
        if rank:
            for slot in slots:
                self._fill(slot)

    def _true_rank(self, slot: int) -> int:
        """One past the last row of A, over the slices, that is not all zero; or what was recorded."""
        recorded = self._recorded_rank(slot)
        if recorded is not None:
            return recorded
        rank = 0
        for a in self._a_stacked:
            used = a[slot, 0].any(dim=1).nonzero()
            if used.numel():
                rank = max(rank, int(used[-1]) + 1)
        return rank

    def _allocate(self, rank: int) -> None:
        num_slices = len(self._a_stacked)
        b_rows = num_slices * rank if self.is_block_diagonal else rank
        self.rank = rank
        self._blank.clear()
        # Pages of slots that are never used are never touched. Ordinary tensors, writable in every mode.
        with torch.inference_mode(False):
            self.a = torch.empty(self.num_slots, self.in_size, num_slices * rank, dtype=torch.float32)
            self.b = torch.empty(self.num_slots, b_rows, self.out_size, dtype=torch.float32)

    def _fill(self, slot: int) -> None:
        rank = self.rank
        if self.is_block_diagonal and slot not in self._blank:
            self.b[slot].zero_()
            self._blank.add(slot)
        for i, (a, b, columns) in enumerate(zip(self._a_stacked, self._b_stacked, self.columns, strict=True)):
            self.a[slot, :, i * rank : (i + 1) * rank].copy_(a[slot, 0, :rank].T)
            first = i * rank if self.is_block_diagonal else 0
            self.b[slot, first : first + rank, columns].copy_(
                b[slot, 0, : columns.stop - columns.start, :rank].T
            )
