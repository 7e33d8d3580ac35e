"""The gateway's allocator keeps few heaps, however many threads there are."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve.allocator import ARENAS

# Threads that all hold something at once; then glibc is asked for its heaps.
PROGRAM = """
import ctypes, sys, threading
from serve.allocator import keep_few_arenas

if sys.argv[1] == "few":
    assert keep_few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(6)

def hold():
    libc.malloc(100_000)
    together.wait()

threads = [threading.Thread(target=hold) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's allocator")
def test_threads_share_their_heaps() -> None:
    heaps = {}
    for asked in ("few", "any"):
        told = subprocess.run(
            [sys.executable, "-c", PROGRAM, asked],
            cwd=Path(__file__).parents[2],
            env={},
            capture_output=True,
            text=True,
            check=True,
        )
        heaps[asked] = len(re.findall(r"<heap nr=", told.stdout))
    assert heaps["few"] <= ARENAS < heaps["any"]
