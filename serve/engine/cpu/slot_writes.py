"""Replaces the adapter in one slot without touching what is zero already, and tells which slots were written.

Defect (vLLM 0.32.0, CPU; speed): `reset_lora` of every LoRA layer fills the slot's whole stack, laid out for the
largest rank, with zeros before an adapter of whatever rank is copied in; the embedding and the output layer,
which hardly an adapter has, are filled as well (12 MB of the default base). That stops all requests for most of
the time that loading an adapter takes.

Mend: the rank that was written into a slot last is remembered with the layer's tensors, and only that much is
filled with zeros. What was never seen written is filled whole, once. The same record tells `slot_factors` which
slots it has to lay out anew; it goes by the tensors' version counters, so that a write from anywhere else, which
nobody recorded, makes everything unknown again. Tensors made in inference mode have no counter: vLLM's own way.

Can go when vLLM clears what was written.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MARK = "_hotswap_slot_writes"
_RECORD = "_hotswap_slot_record"  # on a layer's first A
_LINEAR_DIMENSIONS = 4  # of a linear or output layer's A: (slots, 1, rank, inputs). An embedding's has three.


class SlotWrites:
    """What is known of the slots of one layer."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tuple(tensors)
        self._version = self._count()
        self._unrecorded = 0  # writes that came from elsewhere
        self._depth = 0  # of blocks that write
        self._serials: dict[int, int] = {}
        self._ranks: dict[int, int] = {}

    def rank(self, slot: int) -> int | None:
        """No row of A and no column of B beyond it holds anything but zeros; None: not known."""
        self._look()
        return self._ranks.get(slot)

    def state(self, slot: int) -> tuple[int, int]:
        """Equal as long as nothing was written into the slot."""
        self._look()
        return self._unrecorded, self._serials.get(slot, 0)

    @contextlib.contextmanager
    def writing(self, slot: int, rank: int) -> Iterator[None]:
        """All that is written in the block goes to `slot`, and leaves nothing beyond `rank`."""
        self._look()
        self._depth += 1
        try:
            yield
            self._ranks[slot] = rank
        except BaseException:
            self._ranks.pop(slot, None)
            raise
        finally:
            self._depth -= 1
            self._serials[slot] = self._serials.get(slot, 0) + 1
            if not self._depth:
                self._version = self._count()

    def _look(self) -> None:
        if self._depth:
            return
        version = self._count()
        if version != self._version:
            self._unrecorded += 1
            self._ranks.clear()
            self._version = version

    def _count(self) -> int:
        # Counters only grow: an equal sum means that nothing was written.
        return sum([tensor._version for tensor in self._tensors])


def record_of(first_a: torch.Tensor) -> SlotWrites | None:
    """The record of the layer whose first A this is; None where none is kept."""
    record: SlotWrites | None = getattr(first_a, _RECORD, None)
    return record


def install() -> None:
    """Record writes into slots, and clear what was written alone; again changes nothing."""
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA
    from vllm.lora.layers.column_parallel_linear import (
        MergedColumnParallelLinearVariableSliceWithLoRA,
        MergedColumnParallelLinearWithLoRA,
    )
    from vllm.lora.layers.logits_processor import LogitsProcessorWithLoRA
    from vllm.lora.layers.vocab_parallel_embedding import VocabParallelEmbeddingWithLoRA

    if hasattr(BaseLinearLayerWithLoRA.reset_lora, _MARK):
        return
    linear: list[Any] = [
        BaseLinearLayerWithLoRA,
        MergedColumnParallelLinearWithLoRA,
        MergedColumnParallelLinearVariableSliceWithLoRA,
        LogitsProcessorWithLoRA,
        VocabParallelEmbeddingWithLoRA,
    ]
    for layer_class in linear:
        for name, wrap in (("reset_lora", _reset), ("set_lora", _set)):
            if name in vars(layer_class):
                setattr(layer_class, name, wrap(vars(layer_class)[name]))


def _reset(original: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
    @functools.wraps(original)
    def reset_lora(self: Any, index: int) -> None:
        record = _record(self)
        if record is None:
            original(self, index)
            return
        rank = record.rank(index)
        if rank == 0:
            return
        with record.writing(index, 0):
            stacks_a, stacks_b = _list(self.lora_a_stacked), _list(self.lora_b_stacked)
            if rank is None or stacks_a[0].dim() != _LINEAR_DIMENSIONS:
                original(self, index)
                return
            for a, b in zip(stacks_a, stacks_b, strict=True):
                a[index, 0, :rank] = 0
                b[index, 0, :, :rank] = 0

    setattr(reset_lora, _MARK, True)
    return reset_lora


def _set(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def set_lora(self: Any, index: int, lora_a: Any, lora_b: Any) -> None:
        record = _record(self)
        if record is None:
            original(self, index, lora_a, lora_b)
            return
        parts = [(a, 0) for a in _list(lora_a)] + [(b, 1) for b in _list(lora_b)]
        rank = max((part.shape[axis] for part, axis in parts if part is not None), default=0)
        with record.writing(index, rank):
            original(self, index, lora_a, lora_b)

    return set_lora


def _record(layer: Any) -> SlotWrites | None:
    a, b = _list(layer.lora_a_stacked), _list(layer.lora_b_stacked)
    if any(tensor.is_inference() for tensor in (*a, *b)):
        return None
    record = record_of(a[0])
    if record is None:
        record = SlotWrites((*a, *b))
        setattr(a[0], _RECORD, record)
    return record


def _list(tensors: Any) -> Sequence[Any]:
    return tensors if isinstance(tensors, (list, tuple)) else (tensors,)
