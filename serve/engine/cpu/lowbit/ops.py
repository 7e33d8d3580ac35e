"""Linear layers with low-bit weights on CPUs: all that the layers call.

A weight is packed once, when it is loaded, and used from then on. How it lies in memory is private: only the
`linear_*` function of the same process can read what a `pack_*` function made. All functions may be called from
several threads at once. Arguments that do not fit raise ValueError.
"""

from __future__ import annotations

import torch

from serve.engine.cpu.lowbit import library, torch_ops

BITS = (4, 8)


def available() -> str:
    """ "native" where the compiled kernels are in use, "torch" where PyTorch does the work."""
    return library.kernels().kind


def reason() -> str:
    """Why `available` says what it says, one clause."""
    return library.kernels().reason


def pack_wna16(values: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Lay out `values`, uint8 [N, K] of 0..2**bits-1, for `linear_wna16`; K is a multiple of 32 and of `group`.

    `group` columns share a scale; -1 is all of a row.
    """
    _check_weight("values", values, torch.uint8)
    _group_columns(values.shape[1], bits, group)
    if bits == 4 and values.numel() and int(values.max()) > 15:
        raise ValueError(f"values go up to {int(values.max())}, beyond the 15 that 4 bits hold")
    if _is_native():
        return torch.ops.hotswap_lowbit.pack_wna16(values, bits)
    return torch_ops.pack_wna16(values, bits)


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
    """x @ ((values - zeros) * scales).T + bias, [M, N] in x's dtype, computed in float32.

    x: [M, K] float32 or bfloat16; kernels may keep a value to 2**-23 of the largest of 128 that lie together,
    which is what float32 loses in adding them up. packed: from `pack_wna16` with the same bits and group.
    scales: float32 [N, G], zeros: uint8 [N, G] or None (8 for 4 bits, 128 for 8), bias: [N] or None.
    """
    _check(x, n, bias)
    columns = _group_columns(x.shape[1], bits, group)
    shape = (n, x.shape[1] // columns)
    for name, given, dtype in (("scales", scales, torch.float32), ("zeros", zeros, torch.uint8)):
        if given is not None and (tuple(given.shape) != shape or given.dtype != dtype):
            raise ValueError(f"{name} are {given.dtype} {tuple(given.shape)}, not {dtype} {shape}")
    if _is_native():
        return torch.ops.hotswap_lowbit.linear_wna16(x, packed, scales, zeros, bias, n, bits, columns)
    return torch_ops.linear_wna16(x, packed, scales, zeros, bias, n=n, bits=bits, group=columns)


def pack_w8a8(weight: torch.Tensor) -> torch.Tensor:
    """Lay out `weight`, int8 [N, K], for `linear_w8a8`."""
    _check_weight("weight", weight, torch.int8)
    if _is_native():
        return torch.ops.hotswap_lowbit.pack_w8a8(weight)
    return weight.clone(memory_format=torch.contiguous_format)


def linear_w8a8(
    x: torch.Tensor, packed: torch.Tensor, weight_scale: torch.Tensor, bias: torch.Tensor | None, *, n: int
) -> torch.Tensor:
    """x rounded to int8 per token times int8 weights, summed exactly, times both scales; [M, N] in x's dtype.

    x: [M, K] float32 or bfloat16. packed: from `pack_w8a8`. weight_scale: float32 [N] (or [N, 1]).
    The scale of a token is its largest magnitude / 127.5 and its values round half to even, as
    compressed-tensors computes them in float32 (vLLM's own CPU kernel divides by 127).
    """
    _check(x, n, bias)
    if weight_scale.numel() != n:
        raise ValueError(f"weight_scale has {weight_scale.numel()} values for {n} rows")
    if _is_native():
        return torch.ops.hotswap_lowbit.linear_w8a8(x, packed, weight_scale, bias, n)
    return torch_ops.linear_w8a8(x, packed, weight_scale.reshape(n), bias)


def linear_stored16(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x @ weight.T + bias in float32: x float32 [M, K], weight bfloat16 [N, K] widened exactly, bias [N]."""
    _check(x, weight.shape[0], bias)
    if x.dtype != torch.float32 or weight.dtype != torch.bfloat16 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"x is {x.dtype} {tuple(x.shape)} and weight {weight.dtype} {tuple(weight.shape)}; "
            "wanted float32 [M, K] and bfloat16 [N, K]"
        )
    if _is_native():
        return torch.ops.hotswap_lowbit.linear_stored16(x, weight, bias)
    return torch_ops.linear_stored16(x, weight, bias)


def _is_native() -> bool:
    return library.kernels().kind == library.NATIVE


def _group_columns(columns: int, bits: int, group: int) -> int:
    """Columns that share a scale."""
    shared = columns if group == -1 else group
    if bits not in BITS or columns % 32 or shared < 1 or columns % shared or shared % 8:
        raise ValueError(
            f"{columns} columns of {bits} bits in groups of {group}: wanted 4 or 8 bits, a multiple of 32 "
            "columns, and groups of a multiple of 8 that divide them (or -1)"
        )
    return shared


def _check_weight(name: str, weight: torch.Tensor, dtype: torch.dtype) -> None:
    if weight.ndim != 2 or weight.dtype != dtype:
        raise ValueError(f"{name} are {weight.dtype} {tuple(weight.shape)}, not {dtype} [N, K]")


def _check(x: torch.Tensor, n: int, bias: torch.Tensor | None) -> None:
    if x.ndim != 2 or x.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"x is {x.dtype} {tuple(x.shape)}, not float32 or bfloat16 [M, K]")
    if bias is not None and tuple(bias.shape) != (n,):
        raise ValueError(f"bias is {tuple(bias.shape)}, not {(n,)}")
