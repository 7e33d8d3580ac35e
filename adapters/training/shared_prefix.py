"""Beginnings that samples of a row have in common, such as a system prompt: laid into the row and computed once.

Causal attention makes the hidden states of a token depend on the tokens before it and on nothing else, so those
of a common beginning are the same in every sample that has it. Computing them once changes neither loss nor
gradients, as long as nothing is learned within them and dropout does not tell the samples apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from adapters.data.encode import EncodedExample


@dataclass(frozen=True, slots=True)
class SharedRow:
    """A row of T tokens that stands for N samples with P tokens.

    `order` [N]: the samples as they lie in the row. `own_starts` [N]: the first token of each that is laid into the
    row for it; those before it are another's. `tokens` [P]: where in the row each sample's tokens are, sample after
    sample. `places` [T]: for each token of the row one of its places among the P.
    """

    order: tuple[int, ...]
    own_starts: tuple[int, ...]
    tokens: tuple[int, ...]
    places: tuple[int, ...]

    @property
    def num_saved(self) -> int:
        """Tokens that are not computed again."""
        return len(self.tokens) - len(self.places)


def share_prefixes(samples: Sequence[EncodedExample]) -> SharedRow:
    """Lay samples into a row so that each takes over as much as it can from the one before it, in sorted order."""
    order = sorted(range(len(samples)), key=lambda index: samples[index].input_ids)
    own_starts: list[int] = []
    rows: list[list[int]] = []
    places: list[int] = []
    num_places = 0
    for position, index in enumerate(order):
        sample = samples[index]
        own_start = _num_shared(samples[order[position - 1]], sample) if position else 0
        own = range(len(places), len(places) + len(sample.input_ids) - own_start)
        rows.append([*(rows[-1][:own_start] if own_start else ()), *own])
        places += range(num_places + own_start, num_places + len(sample.input_ids))
        num_places += len(sample.input_ids)
        own_starts.append(own_start)
    return SharedRow(tuple(order), tuple(own_starts), tuple(chain.from_iterable(rows)), tuple(places))


def expand_row(row: Any, tokens: Any) -> Any:
    """[T, ...] -> [P, ...]; gradients of a token that several samples look at are added up in float32."""
    return _Expand.apply(row, tokens)


def _num_shared(before: EncodedExample, sample: EncodedExample) -> int:
    """Tokens that two samples begin with, up to what one of them learns.

    The token after them is the sample's own, is predicted from a state in another's part of the row, and so must
    not be learned either.
    """
    limit = min(
        _first_learned(before), _first_learned(sample) - 1, len(before.input_ids), len(sample.input_ids) - 1
    )
    pairs = zip(before.input_ids[: max(limit, 0)], sample.input_ids, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), max(limit, 0))


def _first_learned(sample: EncodedExample) -> int:
    return sample.supervised.index(True) if True in sample.supervised else len(sample.supervised)


class _Expand(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, row: Any, tokens: Any) -> Any:
        ctx.save_for_backward(tokens)
        ctx.num_tokens = row.shape[0]
        return row.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None]:
        (tokens,) = ctx.saved_tensors
        total = gradient.new_zeros((ctx.num_tokens, *gradient.shape[1:]), dtype=torch.float32)
        return total.index_add_(0, tokens, gradient.float()).to(gradient.dtype), None
