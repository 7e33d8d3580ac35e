"""Norms and SwiGLU of the compiled kernels have the bits of PyTorch's operators, with each instruction set."""

from __future__ import annotations

from typing import Any

import pytest
import torch

ROWS = (1, 3, 50)
WIDTHS = (32, 33, 100, 576, 577, 1536, 5120, 8192)


def plain_norm(
    x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Operator by operator, as vLLM's PyTorch form; also x + residual."""
    wide = x.float() if residual is None else x.float() + residual
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
    return (wide * scale).to(x.dtype) * weight, wide.to(x.dtype)


@pytest.mark.parametrize("width", WIDTHS)
def test_norms_are_bit_for_bit_those_of_pytorch(native: Any, width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    weight = (1 + 0.1 * torch.randn(width, generator=generator)).bfloat16()
    for rows in ROWS:
        x, residual = (3 * torch.randn(2, rows, width, generator=generator)).bfloat16()
        before = x.clone(), residual.clone()
        assert torch.equal(native.norm16(x, weight, 1e-5), plain_norm(x, weight, None)[0])
        found, total = native.add_norm16(x, residual, weight, 1e-5)
        wanted, wanted_total = plain_norm(x, weight, residual)
        assert torch.equal(found, wanted)
        assert torch.equal(total, wanted_total)
        assert torch.equal(x, before[0])
        assert torch.equal(residual, before[1])


@pytest.mark.parametrize("width", WIDTHS)
def test_squares_are_added_up_in_the_order_of_torch(native: Any, width: int) -> None:
    rows = torch.randn(40, width, generator=torch.Generator().manual_seed(width))
    assert torch.equal(native.sums_of_squares(rows), rows.pow(2).sum(-1))


def test_a_row_of_zeros_or_of_huge_values_is_as_in_pytorch(native: Any) -> None:
    x = torch.stack([torch.zeros(64), torch.full((64,), 1e30), torch.full((64,), 1e-30)]).bfloat16()
    weight = torch.ones(64, dtype=torch.bfloat16)
    assert torch.equal(native.norm16(x, weight, 1e-5), plain_norm(x, weight, None)[0])


def test_swiglu_looks_up_every_gate_of_few_rows(native: Any) -> None:
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    table = every.flip(0).contiguous()  # stands for silu: another value for each gate
    for gates in every.reshape(-1, 4, 4096):
        x = torch.cat([gates, torch.full_like(gates, 2.0)], 1)
        wanted = table[gates.view(torch.int16).to(torch.int64) % 2**16] * 2.0
        assert torch.equal(native.swiglu(x, table).nan_to_num(0), wanted.nan_to_num(0))


@pytest.mark.parametrize(("rows", "width"), [(5, 64), (1, 96), (4, 8192)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_swiglu_is_torchs_where_its_silu_has_other_bits_than_the_table(
    native: Any, dtype: torch.dtype, rows: int, width: int
) -> None:
    x = torch.randn(rows, 2 * width, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = native.swiglu(x, torch.zeros(2**16, dtype=torch.bfloat16))
    assert torch.equal(found, torch.nn.functional.silu(x[:, :width]) * x[:, width:])


def test_shapes_that_do_not_fit_are_refused(native: Any) -> None:
    x, weight = torch.zeros(2, 64, dtype=torch.bfloat16), torch.ones(64, dtype=torch.bfloat16)
    for bad in (x[:, :32], x.float(), x.t()):
        with pytest.raises(RuntimeError):
            native.norm16(bad, weight, 1e-5)
    with pytest.raises(RuntimeError):
        native.add_norm16(x, x[:1], weight, 1e-5)
    with pytest.raises(RuntimeError):
        native.norm16(torch.zeros(1, 8193, dtype=x.dtype), torch.zeros(8193, dtype=x.dtype), 1e-5)
    with pytest.raises(RuntimeError):
        native.swiglu(x, weight)
