"""What oneDNN prepares for each number of rows is kept up to the bound that the gateway sets, and not beyond."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest
import torch

from serve.engine.cpu.lowbit import ops

# One layer is given half as many numbers of rows as are kept, the other half, and twice as many others; prints the
# bytes that malloc has given out, before and after each.
PROGRAM = """
import ctypes, sys

class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Mallinfo

def given_out():
    found = libc.mallinfo2()
    return found.uordblks + found.hblkhd

import torch

weight = torch.randn(64, 64)
if sys.argv[2] == "torch":
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def multiply(x):
        torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
elif sys.argv[2] == "ours":
    from serve.engine.cpu.lowbit import blocks

    kept = blocks.blocked(weight)

    def multiply(x):
        kept.multiply(x, None)
else:
    from vllm import _custom_ops as ops

    layer = ops.create_onednn_mm(weight.t(), 4)

    def multiply(x):
        ops.onednn_mm(layer, x, None)

count = int(sys.argv[1])
with torch.inference_mode():
    multiply(torch.randn(1, 64))
    told = [given_out()]
    rows = iter(range(2, 2 + 4 * count))
    for number in (count // 2, count // 2, 2 * count):
        for _ in range(number):
            multiply(torch.randn(next(rows), 64))
        told.append(given_out())
print(*told)
"""
KEPT = 16  # far less than the gateway asks for, so that the test is short


def grown(library: str) -> list[int]:
    """Bytes that the first half of what is kept took, the second, and those beyond."""
    bounds = dict.fromkeys(("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"), str(KEPT))
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(KEPT), library],
        env={**os.environ, **bounds, "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    told = [int(word) for word in finished.stdout.split()[-4:]]
    return [after - before for before, after in itertools.pairwise(told)]


@pytest.mark.parametrize("library", ["vllm", "torch"])
def test_more_widths_than_are_kept_take_no_more_memory(library: str) -> None:
    first, second, beyond = grown(library)
    assert second > first / 4 > 0  # up to the bound each takes more; the first also what is there once
    assert beyond < second / 4


def test_our_kernels_keep_nothing_for_a_width() -> None:
    if ops.available() != "native" or not torch.cpu._is_avx512_supported():
        pytest.skip("without AVX-512 many rows are oneDNN's")
    first, second, beyond = grown("ours")
    assert max(first, second, beyond) < 10_000  # of vLLM's and of torch's each takes more
