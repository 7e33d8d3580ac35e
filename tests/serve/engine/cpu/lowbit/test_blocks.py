"""Plain weights in oneDNN's blocks: the kernels of each instruction set against float64, and what they refuse."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.engine.cpu.lowbit import blocks, library
from tests.serve.engine.cpu.lowbit.layers import EPSILON

REPOSITORY = Path(__file__).parents[5]
DTYPES = [torch.float32, torch.bfloat16]

# `native` switches an instruction set on; it is the same for all examples of a test.
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch, compiled: library.Kernels) -> None:
    """The process's kernels are those that the fixtures load."""
    monkeypatch.setattr(library, "_loaded", compiled)


def made(weight: torch.Tensor) -> blocks.BlockedWeight:
    """`weight` in blocks; skips where torch's oneDNN has others, or none for its type."""
    found = blocks.blocked(weight)
    if found is None:
        pytest.skip(f"torch's oneDNN has no blocks of {weight.dtype} here that the kernels read")
    return found


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@examples
@given(
    rows=st.sampled_from([1, 2, 3, 7, 8, 13, 16, 17, 32, 33, 70, 300]),
    outputs=st.integers(2, 200),
    columns=st.one_of(st.integers(1, 300), st.sampled_from([1536, 2048, 4100, 8961])),
    dtype=st.sampled_from(DTYPES),
    has_bias=st.booleans(),
    magnitude=st.sampled_from([1e-12, 1.0, 1e12]),
    seed=st.integers(0, 2**31),
)
def test_products_are_as_exact_as_float32_can(
    native: Any,
    rows: int,
    outputs: int,
    columns: int,
    dtype: torch.dtype,
    has_bias: bool,
    magnitude: float,
    seed: int,
) -> None:
    weight = random(outputs, columns, dtype=dtype, seed=seed)
    x = random(rows, columns, dtype=dtype, seed=seed + 1) * magnitude
    bias = random(outputs, dtype=dtype, seed=seed + 2) * magnitude if has_bias else None
    got = made(weight).multiply(x, bias)
    exact = x.double() @ weight.double().t()
    size = x.double().abs() @ weight.double().abs().t()
    if bias is not None:
        exact, size = exact + bias.double(), size + bias.double().abs()
    bound = 32 * EPSILON * size + (exact.abs() * 2.0**-8 if dtype == torch.bfloat16 else 0.0)
    assert got.dtype == dtype
    assert got.shape == exact.shape
    off = (got.double() - exact).abs()
    assert bool((off <= bound).all()), f"off by up to {float((off / bound).max()):.1f} bounds"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [577, 4500])
def test_a_row_is_bit_for_bit_the_same_beside_any_number_of_others(
    native: Any, dtype: torch.dtype, columns: int
) -> None:
    weight, bias = random(200, columns, dtype=dtype), random(200, dtype=dtype, seed=2)
    kept = made(weight)
    x = random(min(kept.most_rows, 600), columns, dtype=dtype, seed=1)
    alone = torch.cat([kept.multiply(row.unsqueeze(0), bias) for row in x])
    for rows in sorted({*range(1, min(kept.most_rows, 40) + 1), 71, 106, 256, 257, len(x)}):
        if rows > kept.most_rows:
            break
        assert torch.equal(kept.multiply(x[:rows], bias), alone[:rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_nothing(native: Any, dtype: torch.dtype) -> None:
    kept = made(random(700, 640, dtype=dtype))
    x = random(min(kept.most_rows, 300), 640, dtype=dtype, seed=1)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(kept.multiply(x, None))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_rows_than_the_kernels_are_for_are_onednns(
    native: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(blocks, "_NO_LIMIT", 20)
    weight, bias = random(96, 320, dtype=dtype), random(96, dtype=dtype, seed=2)
    kept = made(weight)
    x = random(kept.most_rows + 1, 320, dtype=dtype, seed=1)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    expected = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    assert torch.equal(kept.multiply(x, bias), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_of_any_shape_and_layout_are_taken(native: Any, dtype: torch.dtype) -> None:
    kept = made(random(70, 63, dtype=dtype))
    wide = random(6, 126, dtype=dtype, seed=1)
    plain = wide[:, :63].contiguous()
    expected = kept.multiply(plain, None)
    assert torch.equal(kept.multiply(plain.view(2, 3, 63), None), expected.view(2, 3, 70))
    torch.testing.assert_close(kept.multiply(wide[:, :63], None), expected)
    assert kept.multiply(plain[:0], None).shape == (0, 70)
    with pytest.raises(RuntimeError, match=r"x has \[6, 126\] for a weight of \[70, 63\]"):
        kept.multiply(wide, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_in_its_row(native: Any, dtype: torch.dtype) -> None:
    kept = made(random(70, 33, dtype=dtype))
    x = random(4, 33, dtype=dtype, seed=1)
    expected = kept.multiply(x, None)
    x[1, 32], x[2, 0] = torch.inf, torch.nan
    found = kept.multiply(x, None)
    assert torch.equal(found[[0, 3]], expected[[0, 3]])
    assert found[1].isinf().all()
    assert found[2].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_that_hold_another_weight_are_not_read(native: Any, dtype: torch.dtype) -> None:
    """Each place counts, the last of them too: another layout would put other values there."""
    onednn = torch.ops.mkldnn
    weight = random(70, 33, dtype=dtype)
    made(weight)
    packed = onednn._reorder_linear_weight(weight, None)
    data, size = onednn.data_ptr(packed), onednn._nbytes(packed)

    def is_readable(given: torch.Tensor, num_bytes: int = size) -> bool:
        layer = torch.classes.hotswap_lowbit.BlockLayer(packed, data, num_bytes, given, 1)
        return bool(layer.is_readable())

    assert is_readable(weight)
    assert not is_readable(weight, size - 4)
    for row, column in ((0, 0), (69, 32)):
        other = weight.clone()
        other[row, column] += 1
        assert not is_readable(other)
    if dtype == torch.bfloat16:  # what stands beside the last of an odd number of columns is multiplied, too
        pair = (ctypes.c_uint16 * (size // 2)).from_address(data)
        pair[16 * 64 * 2 + 1] = 1
        assert not is_readable(weight)


def test_what_has_no_blocks_is_left_to_others(native: Any) -> None:
    assert blocks.blocked(torch.randn(8, 8, dtype=torch.float16)) is None
    assert blocks.blocked(torch.randn(2, 8, 8)) is None
    assert blocks.blocked(torch.randn(0, 8)) is None
    assert blocks.blocked(torch.randn(1, 8)) is None  # one output: oneDNN keeps it as it is


def test_without_the_compiled_kernels_there_are_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_loaded", library.Kernels(library.TORCH, "none here"))
    assert blocks.blocked(torch.randn(64, 64)) is None


def test_on_a_processor_with_amx_few_rows_of_bfloat16_are_for_the_kernels(
    native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = random(64, 64, dtype=torch.bfloat16)
    made(weight)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert made(weight).most_rows == blocks.MOST_ROWS_WITH_AMX
    assert made(weight.float()).most_rows > blocks.MOST_ROWS_WITH_AMX


AVX2_PROGRAM = """
import torch
from serve.engine.cpu.isa import pretend
pretend()
from serve.engine.cpu.lowbit import blocks, library
torch.manual_seed(0)
weight, x = torch.randn(96, 70), torch.randn(5, 70)
kept = blocks.blocked(weight)
exact = x.double() @ weight.double().t()
print(library.kernels().isa, float((kept.multiply(x, None).double() - exact).abs().max() / exact.abs().max()))
print(blocks.blocked(weight.bfloat16()))
"""


def test_where_torch_has_avx2_alone_float32_has_blocks_and_bfloat16_has_none(
    compiled: library.Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve.engine.cpu.isa import AVX2_ENVIRONMENT

    monkeypatch.setenv("HOTSWAP_CPU_ISA", "avx2")
    for name, value in AVX2_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    finished = subprocess.run(
        [sys.executable, "-c", AVX2_PROGRAM],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    first, second = finished.stdout.splitlines()[-2:]
    isa, off = first.split()
    assert isa == "avx2"
    assert float(off) < 1e-6
    assert second == "None"
