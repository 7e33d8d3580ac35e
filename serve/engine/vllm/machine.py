"""What this machine can do, read once before the engine starts."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Instructions that multiply bfloat16 natively; without one of them vLLM's bf16 is emulated and several times
# slower than float32 (docs/architecture.md, "Settings that fit the machine").
_NATIVE_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True, slots=True)
class Machine:
    """The device and what matters of its processor."""

    device: Literal["cpu", "cuda"]
    cores: tuple[int, ...]  # logical processors this process may use
    native_bf16: bool
    avx512: bool
    available_bytes: int
    processor: str


def read_machine() -> Machine:
    """Look at the processor, the memory, and whether vLLM's GPU build and a GPU are here."""
    flags, processor = _read_cpuinfo(Path("/proc/cpuinfo"))
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return Machine(
        device=_read_device(),
        cores=tuple(sorted(cores)),
        native_bf16=bool(flags & _NATIVE_BF16_FLAGS),
        avx512="avx512f" in flags,
        available_bytes=_read_available_bytes(),
        processor=processor,
    )


def _read_cpuinfo(path: Path) -> tuple[frozenset[str], str]:
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


def _read_device() -> Literal["cpu", "cuda"]:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _read_available_bytes() -> int:
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
