"""What this machine can do, read once before the engine starts."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from dataclasses import dataclass
from typing import Literal

from bases.processor import NATIVE_BF16_FLAGS, available_memory_bytes, read_cpuinfo
from bases.settings import BasesSettings
from serve.engine.cpu.lowbit.source import find_library


@dataclass(frozen=True, slots=True)
class Machine:
    """The device and what matters of its processor."""

    device: Literal["cpu", "cuda"]
    cores: tuple[int, ...]  # logical processors this process may use
    native_bf16: bool
    avx512: bool
    available_bytes: int
    processor: str
    vnni: bool = False  # multiplies int8 in one step, for 512 bits
    low_bit_compiled: bool = False  # set-up compiled our kernels for quantised layers


def read_machine() -> Machine:
    """Look at the processor, the memory, and whether vLLM's GPU build and a GPU are here."""
    flags, processor = read_cpuinfo()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return Machine(
        device=_read_device(),
        cores=tuple(sorted(cores)),
        native_bf16=bool(flags & NATIVE_BF16_FLAGS),
        avx512="avx512f" in flags,
        available_bytes=available_memory_bytes(),
        processor=processor,
        vnni="avx512_vnni" in flags,
        low_bit_compiled=find_library(BasesSettings().home) is not None,
    )


def _read_device() -> Literal["cpu", "cuda"]:
    # By its name first: importing torch takes seconds, in which the engine's own imports could have begun.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if importlib.metadata.version("torch").endswith("+cpu"):
            return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
