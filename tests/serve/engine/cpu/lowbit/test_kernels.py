"""The compiled kernels of each instruction set, against float64 and against PyTorch."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
from typing import Any

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.engine.cpu.lowbit import check, library, torch_ops
from tests.serve.engine.cpu.lowbit.layers import EPSILON, Case, Layer, cases

# `native` switches an instruction set on; it is the same for all examples of a test.
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@examples
@given(case=cases())
def test_weights_of_few_bits_are_multiplied_as_exactly_as_float32_can(native: Any, case: Case) -> None:
    layer = Layer.of(case)
    packed = native.pack_wna16(layer.values, case.bits)
    layer.check(
        native.linear_wna16(
            layer.x, packed, layer.scales, layer.zeros, layer.bias, case.rows, case.bits, case.shared
        )
    )


@examples
@given(
    tokens=st.sampled_from([1, 2, 7, 9, 40]),
    group=st.sampled_from([8, 64, 136, 320]),
    bits=st.sampled_from([4, 8]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_sums_that_float32_holds_are_exact(
    native: Any, tokens: int, group: int, bits: int, dtype: torch.dtype, seed: int
) -> None:
    """Whole numbers by whole numbers: nothing is to be rounded on the way, in whichever order it is summed."""
    generator = torch.Generator().manual_seed(seed)
    columns, rows = group * 4, 37
    x = torch.randint(-9, 10, (tokens, columns), generator=generator).to(dtype)
    values = torch.randint(0, 2**bits, (rows, columns), dtype=torch.uint8, generator=generator)
    zeros = torch.randint(0, 2**bits, (rows, 4), dtype=torch.uint8, generator=generator)
    scales = torch.full((rows, 4), 0.5)
    weight = values.double() - zeros.double().repeat_interleave(group, 1)
    exact = x.double() @ weight.t() * 0.5
    got = native.linear_wna16(x, native.pack_wna16(values, bits), scales, zeros, None, rows, bits, group)
    assert torch.equal(got, exact.to(dtype))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tokens", [1, 20])
def test_beside_an_outlier_the_others_keep_their_share_of_its_bits(
    native: Any, tokens: int, bits: int
) -> None:
    """Off by 2**-23 of the largest activation of a run for each weight, and of each product, at most."""
    torch.manual_seed(0)
    x = torch.randn(tokens, 256)
    x[:, 70] = 30000.0
    values = torch.randint(0, 2**bits, (33, 256), dtype=torch.uint8)
    values[:, 70] = 2 ** (bits - 1)  # a weight of zero: what it adds to the error is all there is
    weight = values.double() - 2 ** (bits - 1)
    got = native.linear_wna16(
        x, native.pack_wna16(values, bits), torch.ones(33, 2), None, None, 33, bits, 128
    )
    exact = x.double() @ weight.t()
    bound = weight.abs().sum(1) * 2.0**-23 * 30000.0 + 32 * EPSILON * (x.double().abs() @ weight.abs().t())
    off = (got.double() - exact).abs()
    assert bool((off <= bound).all())
    # The run without the outlier is not touched by it.
    alone = native.linear_wna16(
        x[:, 128:].contiguous(),
        native.pack_wna16(values[:, 128:].contiguous(), bits),
        torch.ones(33, 1),
        None,
        None,
        33,
        bits,
        128,
    )
    bound = 32 * EPSILON * (x[:, 128:].double().abs() @ weight[:, 128:].abs().t())
    assert bool(((alone.double() - x[:, 128:].double() @ weight[:, 128:].t()).abs() <= bound).all())


@pytest.mark.parametrize("tokens", [1, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ends_of_the_range_of_floats_are_no_trap(native: Any, dtype: torch.dtype, tokens: int) -> None:
    values = torch.full((20, 64), 9, dtype=torch.uint8)
    packed = native.pack_wna16(values, 4)

    def product(value: float) -> torch.Tensor:
        x = torch.zeros(tokens, 64, dtype=dtype)
        x[:, 7] = value
        found = native.linear_wna16(x, packed, torch.full((20, 1), 0.25), None, None, 20, 4, 64)
        return torch.Tensor(found).double()

    for exponent in (126, 100, -100):
        exact = torch.full((tokens, 20), 2.0 ** (exponent - 2), dtype=torch.float64)
        assert torch.equal(product(2.0**exponent), exact)
        assert torch.equal(product(-(2.0**exponent)), -exact)
    assert float(product(2.0**-130).abs().max()) <= 2.0**-122
    assert not product(torch.inf).isfinite().any()


@examples
@given(
    tokens=st.sampled_from([1, 2, 3, 4, 7, 9, 33, 200]),
    rows=st.integers(1, 70),
    columns=st.integers(1, 700),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    has_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_int8_layers_equal_pytorch_bit_for_bit(
    native: Any, tokens: int, rows: int, columns: int, dtype: torch.dtype, has_bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = torch.randint(-128, 128, (rows, columns), dtype=torch.int8)
    weight[:, seed % 3 :: 3] = -128
    scale = torch.rand(rows) * 0.01
    x = torch.randn(tokens, columns)
    x[0] = 0.0
    x[-1, ::2] = -9.0  # rounds to -128, beside weights of -128
    x = x.to(dtype)
    bias = torch.randn(rows) if has_bias else None
    got = native.linear_w8a8(x, native.pack_w8a8(weight), scale, bias, rows)
    assert torch.equal(got, torch_ops.linear_w8a8(x, weight, scale, bias))


def test_int8_sums_of_the_largest_values_do_not_saturate(native: Any) -> None:
    columns = 4 * 2**10
    weight = torch.full((17, columns), -128, dtype=torch.int8)
    x = torch.full((2, columns), -127.5)  # the scale is 1, and the half rounds to the even -128
    got = native.linear_w8a8(x, native.pack_w8a8(weight), torch.ones(17), None, 17)
    assert torch.equal(got, torch.full((2, 17), 128.0 * 128.0 * columns))


@examples
@given(
    tokens=st.sampled_from([1, 2, 3, 4, 7, 32, 33, 70]),
    rows=st.integers(1, 70),
    columns=st.integers(1, 700),
    seed=st.integers(0, 2**31),
)
def test_weights_stored_in_bfloat16_are_not_rounded_again(
    native: Any, tokens: int, rows: int, columns: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight, bias = torch.randn(tokens, columns), torch.randn(rows, columns).bfloat16(), torch.randn(rows)
    exact = x.double() @ weight.double().t() + bias
    bound = 32 * EPSILON * (x.double().abs() @ weight.double().abs().t() + bias.abs())
    off = (native.linear_stored16(x, weight, bias).double() - exact).abs()
    assert bool((off <= bound).all())


@pytest.mark.parametrize("tokens", [1, 40])
def test_what_is_not_a_number_stays_in_its_own_token(native: Any, tokens: int) -> None:
    columns, rows = 64, 20
    x = torch.randn(tokens + 1, columns)
    x[-1, 5] = torch.nan
    weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
    values = weight.to(torch.int16).add(128).to(torch.uint8)
    outputs = [
        native.linear_w8a8(x, native.pack_w8a8(weight), torch.ones(rows), None, rows),
        native.linear_wna16(
            x, native.pack_wna16(values, 8), torch.ones(rows, 1), None, None, rows, 8, columns
        ),
        native.linear_stored16(x, weight.bfloat16(), None),
    ]
    for out in outputs:
        assert bool(out[-1].isnan().all())
        assert bool(out[:-1].isfinite().all())


def test_no_tokens_give_no_rows(native: Any) -> None:
    x = torch.empty(0, 64)
    values = torch.zeros(5, 64, dtype=torch.uint8)
    packed = native.pack_wna16(values, 4)
    assert native.linear_wna16(x, packed, torch.ones(5, 2), None, None, 5, 4, 32).shape == (0, 5)
    weight = native.pack_w8a8(torch.zeros(5, 64, dtype=torch.int8))
    assert native.linear_w8a8(x, weight, torch.ones(5), None, 5).shape == (0, 5)
    assert native.linear_stored16(x, torch.zeros(5, 64).bfloat16(), None).shape == (0, 5)


def test_many_threads_at_once_get_what_one_gets(native: Any) -> None:
    layer = Layer.of(Case(9, 200, 256, 4, 32, True, True, torch.float32, 1.0, 0))
    packed = native.pack_wna16(layer.values, 4)

    def run(tokens: int) -> torch.Tensor:
        return native.linear_wna16(
            layer.x[:tokens], packed, layer.scales, layer.zeros, layer.bias, 200, 4, 32
        )

    alone = [run(tokens) for tokens in range(1, 10)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for index, got in enumerate(pool.map(run, [tokens for _ in range(40) for tokens in range(1, 10)])):
            assert torch.equal(got, alone[index % 9])


def test_memory_does_not_grow_from_call_to_call(native: Any) -> None:
    weight = native.pack_w8a8(torch.zeros(512, 512, dtype=torch.int8))
    x, scale = torch.randn(64, 512), torch.ones(512)

    def calls(number: int) -> int:
        for _ in range(number):
            native.linear_w8a8(x, weight, scale, None, 512)
        return int(psutil.Process().memory_info().rss)

    before = calls(50)
    assert calls(400) - before < 8 * 2**20  # the outputs of 400 calls are 50 MiB


def test_a_packed_weight_of_another_layer_is_refused(native: Any) -> None:
    packed = native.pack_wna16(torch.zeros(16, 64, dtype=torch.uint8), 4)
    with pytest.raises(RuntimeError):
        native.linear_wna16(torch.randn(1, 96), packed, torch.ones(16, 3), None, None, 16, 4, 32)
    with pytest.raises(RuntimeError):
        native.linear_w8a8(torch.randn(1, 96), packed, torch.ones(16), None, 16)


def test_the_compiler_of_torch_is_told_the_shapes(native: Any) -> None:
    x = torch.empty(3, 64, device="meta")
    packed = torch.empty(1, device="meta", dtype=torch.uint8)
    scales = torch.empty(5, 2, device="meta")
    assert native.linear_wna16(x, packed, scales, None, None, 5, 4, 32).shape == (3, 5)
    assert native.linear_w8a8(x, packed, scales, None, 5).shape == (3, 5)
    assert native.linear_stored16(x, torch.empty(7, 64, device="meta"), None).shape == (3, 7)


def test_the_check_of_a_build_finds_nothing_in_a_good_library_and_something_in_a_bad_one(
    compiled: library.Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check._differences() == []
    monkeypatch.setattr(torch_ops, "TOKEN_LEVELS", 127.0)
    assert any(line.startswith("int8") for line in check._differences())


def test_threads_are_those_of_torch(compiled: library.Kernels) -> None:
    """A second OpenMP library would have a second pool, and two pools on the same cores wait for each other."""
    program = """
import os, torch
from serve.engine.cpu.lowbit import ops
torch.set_num_threads(2)
torch.ones(2**22).mul_(2).sum()
before = len(os.listdir("/proc/self/task"))
weight = torch.ones(4096, 256, dtype=torch.bfloat16)
for tokens in (1, 64):
    ops.linear_stored16(torch.ones(tokens, 256), weight, None)
names = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
print(ops.available(), len(os.listdir("/proc/self/task")) - before)
print(sum(os.path.basename(name).startswith(("libgomp", "libiomp", "libomp")) for name in names))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["native", "0", "1"]
