"""Encoded examples to the tensors of one batch: one row without padding, or padded rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from adapters.data.encode import EncodedExample

NOT_LEARNED = -100  # the label that transformers and torch leave out of a loss


@dataclass(frozen=True, slots=True)
class PackedCollator:
    """Lays examples end to end in one row of T tokens; attention is told where each begins.

    Gives `input_ids`, `labels` and `position_ids` [1, T] int64 (label i is token i, or -100 where it is not
    learned, as the first of each example never is), `cu_seq_lens_q` and `cu_seq_lens_k` [N + 1] int32,
    `max_length_q` and `max_length_k` int, and `loss_weights` [1, T] float32 when `task_weights` differ.

    With `share_prefixes`, what examples begin with is in the row once (shared_prefix.py): the bounds then count
    the P tokens of all examples, and `packed_tokens` [P] and `packed_places` [T] int64 lead from the row to them
    and back.
    """

    task_weights: Mapping[str, float] = field(default_factory=dict)
    share_prefixes: bool = False

    def __call__(self, examples: Sequence[EncodedExample]) -> dict[str, Any]:
        import torch

        from adapters.training.shared_prefix import share_prefixes

        starts: Sequence[int] = [0] * len(examples)
        shared = share_prefixes(examples) if self.share_prefixes else None
        if shared is not None and shared.num_saved:
            examples, starts = [examples[index] for index in shared.order], shared.own_starts
        lengths = [len(example.input_ids) for example in examples]
        own = list(zip(examples, starts, strict=True))
        bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        batch: dict[str, Any] = {
            "input_ids": torch.tensor([[token for one, start in own for token in one.input_ids[start:]]]),
            "labels": torch.tensor([[label for one, start in own for label in _labels(one)[start:]]]),
            "position_ids": torch.tensor(
                [[place for one, start in own for place in range(start, len(one.input_ids))]]
            ),
            # Attention compares these by identity, so that both names may share one tensor.
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
        }
        if shared is not None and shared.num_saved:
            batch["packed_tokens"] = torch.tensor(shared.tokens)
            batch["packed_places"] = torch.tensor(shared.places)
        if _differ(self.task_weights):
            weights = [
                self.task_weights.get(one.task, 1.0) for one, start in own for _ in one.input_ids[start:]
            ]
            batch["loss_weights"] = torch.tensor([weights])
        return batch


@dataclass(frozen=True, slots=True)
class PaddedCollator:
    """Pads examples on the right to the longest, for models and methods that cannot be packed.

    Gives `input_ids`, `labels` and `attention_mask` [N, L] int64, labels as in `PackedCollator`, and `loss_weights`
    [N, L] float32 when `task_weights` differ.
    """

    pad_token_id: int
    task_weights: Mapping[str, float] = field(default_factory=dict)
    pad_to_multiple_of: int = 1

    def __call__(self, examples: Sequence[EncodedExample]) -> dict[str, Any]:
        import torch

        longest = max(len(example.input_ids) for example in examples)
        longest = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        shape = (len(examples), longest)
        batch = {
            "input_ids": torch.full(shape, self.pad_token_id),
            "labels": torch.full(shape, NOT_LEARNED),
            "attention_mask": torch.zeros(shape, dtype=torch.int64),
        }
        for row, example in enumerate(examples):
            length = len(example.input_ids)
            batch["input_ids"][row, :length] = torch.tensor(example.input_ids)
            batch["labels"][row, :length] = torch.tensor(_labels(example))
            batch["attention_mask"][row, :length] = 1
        if _differ(self.task_weights):
            of_row = [self.task_weights.get(example.task, 1.0) for example in examples]
            batch["loss_weights"] = torch.tensor(of_row)[:, None].expand(shape).contiguous()
        return batch


def _labels(example: EncodedExample) -> list[int]:
    """Tokens that are learned and that something precedes."""
    pairs = zip(example.input_ids, example.supervised, strict=True)
    labels = [token if learned else NOT_LEARNED for token, learned in pairs]
    labels[0] = NOT_LEARNED
    return labels


def _differ(task_weights: Mapping[str, float]) -> bool:
    return any(weight != 1.0 for weight in task_weights.values())
