"""Causal attention within samples that lie end to end in one row, as a few padded blocks of samples of like length.

Padding stands behind every token of its sample, so that causal attention never looks at it: no mask is needed and
nothing is approximated. What goes where is worked out once for a batch, not in each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from adapters.errors import TrainingError

# Samples are computed together with a longer one if they fill this share of it.
_FILL = 0.7
_SHORT_TOKENS = 32
# torch's flash attention for CPUs takes nearly three times as long as plain products for short samples in bfloat16
# (its backward pass, 90 tokens); plain products keep length^2 numbers for each head and sample.
_PRODUCTS_MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class _Block:
    """`samples` x `length` places; `tokens` [samples, length] int64 are the row's tokens, repeated as padding."""

    tokens: Any
    samples: int
    length: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a row of T tokens becomes blocks with P places in all, end to end.

    `tokens` [P] int64 is the token at each place, `places` [T] int64 the place of each token.
    """

    blocks: tuple[_Block, ...]
    tokens: Any
    places: Any
    num_places: int
    # Indices for rows of heads and causal biases, by heads and type; filled by the first layer that needs them.
    prepared: dict[Any, Any] = field(default_factory=dict)


_layouts: Any = WeakTensorKeyDictionary()


def attend_in_blocks(query: Any, key: Any, value: Any, bounds: Any, *, scale: float, dropout: float) -> Any:
    """Attention [T, H, D], [T, H_kv, D], [T, H_kv, D] -> [T, H, D]; `bounds` [N + 1] are the samples' first tokens.

    Raises TrainingError for bounds that are not those of the row.
    """
    layout = _layout(bounds, query.shape[0])
    longest = max(block.length for block in layout.blocks)
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    if query.device.type == "cpu" and is_half and dropout == 0.0 and longest <= _PRODUCTS_MAX_TOKENS:
        return _Products.apply(query, key, value, layout, scale)
    gathered = [_Gather.apply(x, layout.tokens, layout.places) for x in (query, key, value)]
    sizes = [block.samples * block.length for block in layout.blocks]
    outputs = []
    for block, *parts in zip(layout.blocks, *(x.split(sizes) for x in gathered), strict=True):
        attended = torch.nn.functional.scaled_dot_product_attention(
            *(part.unflatten(0, (block.samples, block.length)).transpose(1, 2) for part in parts),
            dropout_p=dropout,
            is_causal=True,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, layout.places)


class _Gather(torch.autograd.Function):  # type: ignore[misc]
    """Row to places. Padding passes no gradient on, since its own is zero: nothing looks at it."""

    @staticmethod
    def forward(ctx: Any, row: Any, tokens: Any, places: Any) -> Any:
        ctx.save_for_backward(places)
        return row.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


class _Products(torch.autograd.Function):  # type: ignore[misc]
    """Attention in half precision by matrix products: scores and softmax in float32, the rest in the row's type.

    The G query heads that share a key head lie one after another as G * length rows of one product.
    """

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, layout: _Layout, scale: float) -> Any:
        num_tokens, heads, _ = query.shape
        kv_heads = key.shape[1]
        query_rows, key_rows, value_rows = (x.reshape(-1, x.shape[-1]) for x in (query, key, value))
        of_query, of_key = _head_rows(layout, heads), _head_rows(layout, kv_heads)
        saved, outputs = [], []
        for number, block in enumerate(layout.blocks):
            batch = (block.samples * kv_heads, -1, query.shape[-1])
            q = query_rows.index_select(0, of_query.tokens[number]).view(batch)
            k = key_rows.index_select(0, of_key.tokens[number]).view(batch)
            v = value_rows.index_select(0, of_key.tokens[number]).view(batch)
            bias = _causal_bias(layout, block.length, heads // kv_heads, query.device)
            scores = torch.baddbmm(bias, q.float(), k.float().transpose(1, 2), alpha=scale)
            shares = torch.softmax(scores, dim=-1, out=scores).to(query.dtype)
            outputs.append(torch.bmm(shares, v).view(-1, query.shape[-1]))
            saved += [q, k, v, shares]
        ctx.save_for_backward(*saved)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape)
        ctx.of_query, ctx.of_key = of_query, of_key
        return _end_to_end(outputs, of_query.places).view(num_tokens, heads, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, Any, Any, None, None]:
        query_shape, key_shape = ctx.shapes
        size = query_shape[-1]
        padded = gradient.new_zeros((ctx.of_query.num_places, size))
        padded.index_copy_(0, ctx.of_query.places, gradient.reshape(-1, size))
        of_query, of_key, of_value = [], [], []
        saved = iter(ctx.saved_tensors)
        parts = padded.split([len(tokens) for tokens in ctx.of_query.tokens])
        for part, q, k, v, shares in zip(parts, saved, saved, saved, saved, strict=True):
            of_output = part.view(q.shape)
            of_value.append(torch.bmm(shares.transpose(1, 2), of_output).view(-1, size))
            of_shares = torch.bmm(of_output, v.transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype)
            of_query.append(torch.bmm(of_scores, k).mul_(ctx.scale).view(-1, size))
            of_key.append(torch.bmm(of_scores.transpose(1, 2), q).mul_(ctx.scale).view(-1, size))
        return (
            _end_to_end(of_query, ctx.of_query.places).view(query_shape),
            _end_to_end(of_key, ctx.of_key.places).view(key_shape),
            _end_to_end(of_value, ctx.of_key.places).view(key_shape),
            None,
            None,
        )


@dataclass(frozen=True, slots=True)
class _HeadRows:
    """As blocks and places of a layout, for rows [T * heads, D]; blocks are ordered by sample, head, token."""

    tokens: tuple[Any, ...]
    places: Any
    num_places: int


def _head_rows(layout: _Layout, heads: int) -> _HeadRows:
    if heads not in layout.prepared:
        head = torch.arange(heads, device=layout.places.device)
        tokens = [
            (block.tokens[:, None, :] * heads + head[None, :, None]).flatten() for block in layout.blocks
        ]
        # The places of rows of heads: those of the tokens, laid out anew within each block.
        places, first = [], 0
        starts = []
        for block in layout.blocks:
            place = torch.arange(block.samples * block.length, device=head.device)
            sample, token = place // block.length, place % block.length
            starts.append(first + sample * heads * block.length + token)
            first += block.samples * heads * block.length
            places.append(torch.full_like(place, block.length))
        start = torch.cat(starts)[layout.places]
        step = torch.cat(places)[layout.places]
        rows = (start[:, None] + step[:, None] * head).flatten()
        layout.prepared[heads] = _HeadRows(tuple(tokens), rows, first)
    prepared: _HeadRows = layout.prepared[heads]
    return prepared


def _causal_bias(layout: _Layout, length: int, group: int, device: Any) -> Any:
    """[group * length, length] float32: 0 where a token may look, -inf ahead of it."""
    name = ("bias", length, group)
    if name not in layout.prepared:
        ahead = torch.full((length, length), float("-inf"), device=device).triu_(1)
        layout.prepared[name] = ahead.repeat(group, 1)
    return layout.prepared[name]


def _end_to_end(blocks: list[Any], places: Any) -> Any:
    return (blocks[0] if len(blocks) == 1 else torch.cat(blocks)).index_select(0, places)


def _layout(bounds: Any, num_tokens: int) -> _Layout:
    """The layout of a batch, made when its first layer asks."""
    layout: _Layout | None = _layouts.get(bounds)
    if layout is None:
        starts = bounds.tolist()
        if starts[0] != 0 or starts[-1] != num_tokens:
            raise TrainingError(
                f"cu_seq_lens_q spans tokens {starts[0]} to {starts[-1]} of a row of {num_tokens}."
            )
        layout = _make_layout(starts, bounds.device)
        _layouts[bounds] = layout
    return layout


def _make_layout(starts: Sequence[int], device: Any) -> _Layout:
    lengths = [end - start for start, end in pairwise(starts)]
    groups: list[list[int]] = []
    for sample in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i]):
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and (longest <= _SHORT_TOKENS or lengths[sample] >= _FILL * longest):
            groups[-1].append(sample)
        else:
            groups.append([sample])
    blocks = []
    places = [0] * starts[-1]
    num_places = 0
    for group in groups:
        longest = lengths[group[0]]
        tokens = []
        for sample in sorted(group):
            start, length = starts[sample], lengths[sample]
            tokens.append([*range(start, start + length), *[start] * (longest - length)])
            places[start : start + length] = range(num_places, num_places + length)
            num_places += longest
        blocks.append(_Block(torch.tensor(tokens, device=device), len(group), longest))
    every = torch.cat([block.tokens.flatten() for block in blocks])
    return _Layout(tuple(blocks), every, torch.tensor(places, device=device), num_places)
