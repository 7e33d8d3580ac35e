"""One LoRA layer's weights, laid out for dense products over the slots in use.

vLLM keeps, per slice of a packed layer (q, k, v), one A and one B for all slots, padded with zeros to the
largest rank it was started for. Here A of all slices lies side by side and B under each other (block-diagonal
while that is small), cut to the rank that the slots really have, in float32.

vLLM writes a slot's weights in place when an adapter comes or goes. Each in-place write raises the tensor's
version counter, inside `torch.inference_mode` too (tested), and a changed counter drops what was laid out
before: of the slots that were written where `slot_writes` keeps a record of that, else of all. Tensors made *in*
inference mode have no counter; for those nothing is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from serve.engine.cpu.slot_writes import record_of

# Up to this many slots B is kept block-diagonal: one product instead of one per slice, for some more memory.
MAX_BLOCK_DIAGONAL_SLOTS = 8


class SlotFactors:
    """The laid-out factors of one layer: delta = x @ a[slot] @ b[slot]."""

    def __init__(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> None:
        """`a_stacked`: (slots, 1, max_rank, in) and `b_stacked`: (slots, 1, out, max_rank), per slice."""
        self._a_stacked = tuple(a_stacked)
        self._b_stacked = tuple(b_stacked)
        self._sources = self._a_stacked + self._b_stacked
        self._is_versioned = not any(source.is_inference() for source in self._sources)
        self._version = -1
        self._prepared_slots: tuple[int, ...] | None = None
        self._prepared_has_weights = False
        self._rank_of: dict[int, int] = {}
        self._states: dict[int, tuple[int, int]] = {}  # of recorded slots, when they were laid out
        self.num_slots = int(a_stacked[0].shape[0])
        self.in_size = int(a_stacked[0].shape[-1])
        self.is_block_diagonal = len(a_stacked) > 1 and self.num_slots <= MAX_BLOCK_DIAGONAL_SLOTS
        offsets = [sum(output_slices[:i]) for i in range(len(output_slices) + 1)]
        self.columns = tuple(slice(lo, hi) for lo, hi in itertools.pairwise(offsets))
        self.out_size = offsets[-1]
        self.is_kept = False  # the owner's mark that this memory is accounted for; laying out clears it
        self.kept_bytes = 0  # what the owner has accounted for
        self._blank: set[int] = (
            set()
        )  # slots whose B was filled with zeros once: only its blocks are ever written
        self.rank = 0  # largest rank among the laid-out slots
        self.a = torch.empty(0)  # (num_slots, in_size, num_slices * rank), float32
        self.b = torch.empty(0)  # (num_slots, num_slices * rank or rank, out_size), float32

    def serves(self, a_stacked: Sequence[torch.Tensor], b_stacked: Sequence[torch.Tensor]) -> bool:
        """True if these are the very tensors the factors were made for."""
        return self._a_stacked[0] is a_stacked[0] and self._b_stacked[0] is b_stacked[0]

    @property
    def size_bytes(self) -> int:
        """Memory of the laid-out slots."""
        per_slot = (self.a.numel() + self.b.numel()) // max(self.num_slots, 1)
        return int(per_slot * 4 * len(self._rank_of))

    def release(self) -> None:
        """Forget what is laid out."""
        self._rank_of.clear()
        self._blank.clear()
        self._prepared_slots = None
        self.rank = 0
        self.a = self.b = torch.empty(0)

    def prepare(self, slots: tuple[int, ...]) -> bool:
        """Lay out what is missing of `slots`; False if none of them has weights in this layer."""
        # Counters only grow: an equal sum means that nothing was written.
        version = sum(source._version for source in self._sources) if self._is_versioned else -1
        if version != self._version or not self._is_versioned:
            self._drop_written()
            self._version = version
        elif slots is self._prepared_slots:
            return self._prepared_has_weights
        missing = [slot for slot in slots if slot not in self._rank_of]
        if missing:
            self._lay_out(missing)
        self._prepared_slots = slots
        self._prepared_has_weights = any(self._rank_of[slot] for slot in slots)
        return self._prepared_has_weights

    def _drop_written(self) -> None:
        record = record_of(self._a_stacked[0])
        if record is None:
            self._rank_of.clear()
            return
        for slot in [slot for slot in self._rank_of if self._states.get(slot) != record.state(slot)]:
            del self._rank_of[slot]

    def _lay_out(self, slots: list[int]) -> None:
        self.is_kept = False
        already = list(self._rank_of)
        self._rank_of.update((slot, self._true_rank(slot)) for slot in slots)
        rank = max(self._rank_of.values())
        if rank != self.rank or (rank and self.a.numel() == 0):
            self._allocate(rank)
            slots = [*already, *slots]
        if rank:
            for slot in slots:
                self._fill(slot)

    def _true_rank(self, slot: int) -> int:
        """One past the last row of A, over the slices, that is not all zero; or what was recorded."""
        record = record_of(self._a_stacked[0])
        if record is not None:
            self._states[slot] = record.state(slot)
            recorded = record.rank(slot)
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
