"""What the processor of this machine can do, or what it is told to say.

HOTSWAP_CPU_ISA=avx2 hides everything beyond AVX2 from the project, from torch and from vLLM: a switch for
developers, to see on this machine what another would do.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import ClassVar

from bases.errors import HotswapError

ISA_VARIABLE = "HOTSWAP_CPU_ISA"
AVX2 = "avx2"

CPUINFO = Path("/proc/cpuinfo")

# Instructions that multiply bfloat16 natively; without one of them bfloat16 is emulated on a CPU and several times
# slower than float32 (docs/architecture.md, "Settings that fit the machine").
NATIVE_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


# Instruction flags that a plain AVX2 processor has not, by the beginnings of their names.
_BEYOND_AVX2 = ("avx512", "avx10", "avx_vnni", "avx_ne_convert", "amx")


class UnknownIsaError(HotswapError):
    """HOTSWAP_CPU_ISA asks for a processor that cannot be simulated."""

    code: ClassVar[str] = "cpu_isa_unknown"


def simulated_isa() -> str | None:
    """`avx2` where HOTSWAP_CPU_ISA asks for it, None without; raises UnknownIsaError."""
    wanted = os.environ.get(ISA_VARIABLE, "").strip().lower()
    if wanted not in ("", AVX2):
        raise UnknownIsaError(f"{ISA_VARIABLE}={wanted} cannot be simulated; use {AVX2}, or leave it out")
    return wanted or None


def is_beyond_avx2(flag: str) -> bool:
    """Is this flag, in the spelling of /proc/cpuinfo or torch.cpu, one that a plain AVX2 processor has not?"""
    return flag.startswith(_BEYOND_AVX2)


def read_cpuinfo(path: Path = CPUINFO) -> tuple[frozenset[str], str]:
    """(instruction flags, name of the processor); no flags where the system has no such file.

    The flags are those of the simulated processor where there is one.
    """
    flags: frozenset[str] = frozenset()
    processor = platform.processor() or platform.machine()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return flags, processor
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
        elif key.strip() == "model name":
            processor = value.strip()
        elif not line.strip() and flags:
            break  # the first processor stands for all
    if simulated_isa() == AVX2:
        flags = frozenset(flag for flag in flags if not is_beyond_avx2(flag))
        processor = f"{processor}, as if it had no more than AVX2 ({ISA_VARIABLE}={AVX2})"
    return flags, processor


def available_memory_bytes() -> int:
    """Free memory, within the limit of a container."""
    import psutil

    available = int(psutil.virtual_memory().available)
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such group, or "max"
            continue
        return min(available, limit)
    return available
