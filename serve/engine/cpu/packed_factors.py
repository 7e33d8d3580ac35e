"""One LoRA layer's weights for the compiled operator: A where vLLM keeps it, B laid out once per adapter.

Both stay in the stacks' own type, so that nothing is rounded and bfloat16 takes half of what float32 does; each
slice of each slot has its own true rank, and a slice that an adapter lacks costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from serve.engine.cpu.slot_layout import SlotLayout

DTYPES = frozenset({torch.float32, torch.bfloat16})
"""Of factors, inputs and outputs, which are the same."""

ADDED, STALE, UNFIT = 0, 1, 2
"""What `torch.ops.hotswap_lowbit.lora_add` returns: done; `prepare` comes first; not for these shapes or types."""


class PackedFactors(SlotLayout):
    """The laid-out factors of one layer, whose `address` the operator takes. The library is loaded already."""

    def __init__(
        self,
        a_stacked: Sequence[torch.Tensor],
        b_stacked: Sequence[torch.Tensor],
        output_slices: Sequence[int],
    ) -> None:
        """`a_stacked`: (slots, 1, max_rank, in) and `b_stacked`: (slots, 1, out, max_rank), per slice."""
        super().__init__(a_stacked, b_stacked)
        self._max_rank = max(int(a.shape[2]) for a in a_stacked)
        self._layer = torch.classes.hotswap_lowbit.LoraLayer(
            list(a_stacked), list(b_stacked), list(output_slices)
        )
        self.address: int = self._layer.address()

    @property
    def size_bytes(self) -> int:
        """Memory of the laid-out slots."""
        return sum(self._laid_out.values())

    def release(self) -> None:
        """Forget what is laid out."""
        for slot in self._laid_out:
            self._layer.drop(slot)
        super().release()

    def prepare(self, slots: tuple[int, ...]) -> bool:
        """Lay out what is missing of `slots`; False if none of them has weights in this layer."""
        has_weights = super().prepare(slots)
        self._layer.accept()
        return has_weights

    def _drop_written(self) -> None:
        before = set(self._laid_out)
        super()._drop_written()
        for slot in before - set(self._laid_out):
            self._layer.drop(slot)

    def _lay_out(self, slots: list[int]) -> None:
        for slot in slots:
            recorded = self._recorded_rank(slot)
            rank = self._max_rank if recorded is None else recorded
            self._laid_out[slot] = self._layer.lay_out(slot, rank)
