"""The low-bit layers in PyTorch alone: for machines without the compiled kernels, and what these are tested by.

Weights are widened some rows at a time, so that little memory is needed beyond the packed weights. Arguments
are those of ops.py, already checked.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional

CHUNK_BYTES = 8 * 1024**2
"""Largest piece of a weight that is widened to float32 at once."""

EXACT_INT8_COLUMNS = 2**24 // (128 * 128)
"""So many products of two int8 add up to at most 2**24, up to which float32 holds every integer."""

TOKEN_LEVELS = 127.5
"""compressed-tensors divides by half of the range (255 / 2), not by the largest int8."""


def pack_wna16(values: torch.Tensor, bits: int) -> torch.Tensor:
    """[N, K] values to [N, K * bits / 8] bytes; of two 4-bit values the first lies in the low half."""
    if bits == 8:
        return values.clone(memory_format=torch.contiguous_format)
    return values[:, 0::2] | (values[:, 1::2] << 4)


def linear_wna16(
    x: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    bias: torch.Tensor | None,
    *,
    n: int,
    bits: int,
    group: int,
) -> torch.Tensor:
    """x @ ((values - zeros) * scales).T + bias, in float32, [M, N] in x's dtype."""
    wide = x.float()
    out = torch.empty(x.shape[0], n, dtype=torch.float32)
    for rows in _row_chunks(n, x.shape[1]):
        weight = _values(packed[rows], bits).float().unflatten(1, (-1, group))
        if zeros is None:
            weight -= 2 ** (bits - 1)
        else:
            weight -= zeros[rows].float().unsqueeze(-1)
        weight *= scales[rows].unsqueeze(-1)
        out[:, rows] = wide @ weight.flatten(1).t()
    return _finish(out, bias, x.dtype)


def linear_w8a8(
    x: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Activations rounded to int8 per token, exact integer product with int8 `weight` [N, K], then scaled."""
    rounded, x_scale = round_tokens(x)
    wide = rounded.float()
    num_tokens, columns = x.shape
    out = torch.empty(num_tokens, weight.shape[0], dtype=torch.float32)
    for rows in _row_chunks(weight.shape[0], columns):
        total = torch.zeros(num_tokens, rows.stop - rows.start, dtype=torch.int32)
        for first in range(0, columns, EXACT_INT8_COLUMNS):
            piece = slice(first, first + EXACT_INT8_COLUMNS)
            total += (wide[:, piece] @ weight[rows, piece].float().t()).to(torch.int32)
        out[:, rows] = total.float() * x_scale * weight_scale[rows]
    return _finish(out, bias, x.dtype)


def round_tokens(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [M, K] and float32 scales [M, 1] of x [M, K], as compressed-tensors rounds dynamic symmetric tokens.

    Computed in float32 whatever x is. A row of zeros has the scale float32's epsilon.
    """
    wide = x.float()
    scale = wide.abs().amax(dim=1, keepdim=True) / TOKEN_LEVELS
    scale = torch.where(scale == 0, torch.finfo(torch.float32).eps, scale)
    return torch.round((wide / scale).clamp(-128, 127)).to(torch.int8), scale


def linear_stored16(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """float32 x [M, K] times bfloat16 `weight` [N, K], widened exactly."""
    out = torch.empty(x.shape[0], weight.shape[0], dtype=torch.float32)
    for rows in _row_chunks(weight.shape[0], x.shape[1]):
        out[:, rows] = functional.linear(x, weight[rows].float())
    return _finish(out, bias, torch.float32)


def _row_chunks(num_rows: int, columns: int) -> Iterator[slice]:
    step = max(CHUNK_BYTES // (4 * columns), 1)
    for first in range(0, num_rows, step):
        yield slice(first, min(first + step, num_rows))


def _values(packed: torch.Tensor, bits: int) -> torch.Tensor:
    if bits == 8:
        return packed
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1)


def _finish(out: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    if bias is not None:
        out += bias.float()
    return out.to(dtype)
