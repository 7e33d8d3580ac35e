"""What the processor of this machine can do."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

# Instructions that multiply bfloat16 natively; without one of them bfloat16 is emulated on a CPU and several times
# slower than float32 (docs/architecture.md, "Settings that fit the machine").
NATIVE_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def read_cpuinfo(path: Path = CPUINFO) -> tuple[frozenset[str], str]:
    """(instruction flags, name of the processor); no flags where the system has no such file."""
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
