"""The layers in PyTorch: against float64, and their rounding against compressed-tensors."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
from hypothesis import given, settings

from serve.engine.cpu.lowbit import torch_ops
from tests.serve.engine.cpu.lowbit.layers import Case, Layer, cases


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_weights_of_few_bits_are_multiplied_as_exactly_as_float32_can(case: Case) -> None:
    layer = Layer.of(case)
    packed = torch_ops.pack_wna16(layer.values, case.bits)
    assert packed.nbytes == case.rows * case.columns * case.bits // 8
    layer.check(
        torch_ops.linear_wna16(
            layer.x,
            packed,
            layer.scales,
            layer.zeros,
            layer.bias,
            n=case.rows,
            bits=case.bits,
            group=case.shared,
        )
    )


def test_tokens_are_rounded_as_compressed_tensors_rounds_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 50, 576) * torch.logspace(-6, 6, 50).reshape(1, 50, 1)
    x[0, 0] = 0.0
    x[0, 1, 3] = -127.5  # the scale is 1: half to even is -128
    x[0, 2, 3] = 127.5  # and 128 is clamped to 127
    arguments = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
    scale, zero = compute_dynamic_scales_and_zp(x, arguments, torch.nn.Linear(1, 1))
    wanted = quantize(x, scale, zero, arguments, dtype=torch.int8)
    rounded, scales = torch_ops.round_tokens(x[0])
    assert torch.equal(scales, scale[0])
    assert torch.equal(rounded, wanted[0])
    assert (rounded[1].min(), rounded[2].max()) == (-128, 127)


@pytest.mark.parametrize("columns", [1, 1023, 1024, 1025, 5000])
def test_int8_products_are_exact_for_any_number_of_columns(columns: int) -> None:
    torch.manual_seed(columns)
    weight = torch.randint(-128, 128, (5, columns), dtype=torch.int8)
    weight[0] = -128
    x = torch.randn(3, columns)
    x[0] = -1.0
    rounded, scale = torch_ops.round_tokens(x)
    weight_scale = torch.rand(5)
    total = rounded.long() @ weight.long().t()
    wanted = total.float() * scale * weight_scale
    assert torch.equal(torch_ops.linear_w8a8(x, weight, weight_scale, None), wanted)


def test_large_weights_are_widened_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 64), torch.randn(50, 64).bfloat16(), torch.randn(50)
    whole = torch_ops.linear_stored16(x, weight, bias)
    monkeypatch.setattr(torch_ops, "CHUNK_BYTES", 7 * 64 * 4)
    assert [len(range(50)[rows]) for rows in torch_ops._row_chunks(50, 64)] == [7] * 7 + [1]
    torch.testing.assert_close(torch_ops.linear_stored16(x, weight, bias), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole, x @ weight.float().t() + bias, rtol=1e-5, atol=1e-5)
