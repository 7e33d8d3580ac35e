"""Which slots of one LoRA layer are laid out for products, and whether that is still what its stacks hold.

vLLM writes a slot's weights in place when an adapter comes or goes. Each in-place write raises the tensor's
version counter, inside `torch.inference_mode` too (tested), and a changed counter drops what was laid out
before: of the slots that were written where `slot_writes` keeps a record of that, else of all. Tensors made *in*
inference mode have no counter; for those nothing is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from serve.engine.cpu.slot_writes import record_of


class SlotLayout:
    """The laid-out slots of one layer; a subclass lays them out."""

    def __init__(self, a_stacked: Sequence[torch.Tensor], b_stacked: Sequence[torch.Tensor]) -> None:
        """`a_stacked`: (slots, 1, max_rank, in) and `b_stacked`: (slots, 1, out, max_rank), per slice."""
        self._a_stacked = tuple(a_stacked)
        self._b_stacked = tuple(b_stacked)
        self._sources = self._a_stacked + self._b_stacked
        self._is_versioned = not any(source.is_inference() for source in self._sources)
        self._version = -1
        self._prepared_slots: tuple[int, ...] | None = None
        self._prepared_has_weights = False
        self._laid_out: dict[int, int] = {}  # by slot; 0: it has no weights in this layer
        self._states: dict[int, tuple[int, int]] = {}  # of recorded slots, when they were laid out
        self.is_kept = False  # the owner's mark that this memory is accounted for; laying out clears it
        self.kept_bytes = 0  # what the owner has accounted for

    def serves(self, a_stacked: Sequence[torch.Tensor], b_stacked: Sequence[torch.Tensor]) -> bool:
        """True if these are the very tensors this was made for."""
        return self._a_stacked[0] is a_stacked[0] and self._b_stacked[0] is b_stacked[0]

    @property
    def size_bytes(self) -> int:
        """Memory of the laid-out slots."""
        raise NotImplementedError

    def release(self) -> None:
        """Forget what is laid out."""
        self._laid_out.clear()
        self._prepared_slots = None

    def prepare(self, slots: tuple[int, ...]) -> bool:
        """Lay out what is missing of `slots`; False if none of them has weights in this layer."""
        # Counters only grow: an equal sum means that nothing was written.
        version = sum(source._version for source in self._sources) if self._is_versioned else -1
        if version != self._version or not self._is_versioned:
            self._drop_written()
            self._version = version
        elif slots is self._prepared_slots:
            return self._prepared_has_weights
        missing = [slot for slot in slots if slot not in self._laid_out]
        if missing:
            self.is_kept = False
            self._lay_out(missing)
        self._prepared_slots = slots
        self._prepared_has_weights = any(self._laid_out[slot] for slot in slots)
        return self._prepared_has_weights

    def _lay_out(self, slots: list[int]) -> None:
        """Lay out these slots and enter them in `_laid_out`."""
        raise NotImplementedError

    def _drop_written(self) -> None:
        record = record_of(self._a_stacked[0])
        if record is None:
            self._laid_out.clear()
            return
        for slot in [slot for slot in self._laid_out if self._states.get(slot) != record.state(slot)]:
            del self._laid_out[slot]

    def _recorded_rank(self, slot: int) -> int | None:
        """Beyond it the slot, which is about to be laid out, holds nothing but zeros; None: not known."""
        record = record_of(self._a_stacked[0])
        if record is None:
            return None
        self._states[slot] = record.state(slot)
        return record.rank(slot)
