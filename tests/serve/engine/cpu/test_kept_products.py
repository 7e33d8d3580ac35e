"""What oneDNN prepares for each number of rows is kept up to the bound that the gateway sets, and not beyond."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

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
from vllm import _custom_ops as ops

count = int(sys.argv[1])
with torch.inference_mode():
    layer = ops.create_onednn_mm(torch.randn(64, 64).t(), 4)
    ops.onednn_mm(layer, torch.randn(1, 64), None)
    told = [given_out()]
    rows = iter(range(2, 2 + 4 * count))
    for number in (count // 2, count // 2, 2 * count):
        for _ in range(number):
            ops.onednn_mm(layer, torch.randn(next(rows), 64), None)
        told.append(given_out())
print(*told)
"""
KEPT = 16  # far less than the gateway asks for, so that the test is short


def test_more_widths_than_are_kept_take_no_more_memory() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(KEPT)],
        env={**os.environ, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(KEPT), "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    told = [int(word) for word in finished.stdout.split()[-4:]]
    first, second, beyond = (after - before for before, after in itertools.pairwise(told))
    assert second > first / 2 > 0  # up to the bound each takes as much as the one before
    assert beyond < second / 4
