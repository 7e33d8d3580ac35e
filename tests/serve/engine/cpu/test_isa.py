"""HOTSWAP_CPU_ISA=avx2: what torch, vLLM and the gateway then say of this machine."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from bases.processor import UnknownIsaError, read_cpuinfo
from serve.engine.cpu import isa

CPUINFO = """model name\t: New One
flags\t\t: fma avx2 avx512f avx512_bf16 avx512_vnni avx_vnni amx_bf16 amx_tile
"""
ASK = """
import torch
import vllm._custom_ops
libraries = {line.split("/")[-1].strip() for line in open("/proc/self/maps") if "/vllm/_C" in line}
print(torch.backends.cpu.get_cpu_capability(), torch.cpu._is_avx512_supported(), torch.cpu._is_vnni_supported(),
      hasattr(torch.ops._C, "cpu_gemm_wna16"), *libraries)
"""


def test_the_flags_beyond_avx2_are_gone_and_the_name_says_so(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    assert "avx512_vnni" in read_cpuinfo(path)[0]
    monkeypatch.setenv("HOTSWAP_CPU_ISA", "avx2")
    flags, processor = read_cpuinfo(path)
    assert flags == {"fma", "avx2"}
    assert processor == "New One, as if it had no more than AVX2 (HOTSWAP_CPU_ISA=avx2)"


def test_another_processor_cannot_be_simulated(monkeypatch):
    monkeypatch.setenv("HOTSWAP_CPU_ISA", "neon")
    with pytest.raises(UnknownIsaError, match="HOTSWAP_CPU_ISA=neon cannot be simulated; use avx2"):
        read_cpuinfo()


def test_vllm_finds_the_entry_point():
    entries = importlib.metadata.entry_points(group="vllm.platform_plugins", name="hotswap_isa")
    assert [entry.load() for entry in entries] == [isa.pretend]


@pytest.mark.skipif("avx2" not in read_cpuinfo()[0], reason="vLLM's CPU build needs AVX2")
def test_vllm_takes_the_library_for_avx2_which_has_no_kernel_for_four_bits():
    finished = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "HOTSWAP_CPU_ISA": "avx2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.stdout.split() == ["AVX2", "False", "False", "False", "_C_AVX2.abi3.so"], finished.stderr[
        -2000:
    ]
