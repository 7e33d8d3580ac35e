"""Runs inside the engine: how much memory the weights, the adapters' slots and the KV cache each add.

vLLM calls `register` in each of its processes, through an entry point that benchmarks/quantisation/memory.py puts
on the server's path; the server itself knows nothing of it. vLLM's own figure ("Model loading took ...") is of the
whole machine on a CPU, and the tensors that Python sees leave out what kernels keep in layouts of their own, so
that the process' private memory is read before and after each step, with freed memory given back first.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_VARIABLE = "HOTSWAP_BENCH_MEMORY"
_ROLLUP = Path("/proc/self/smaps_rollup")


def register() -> None:
    """Wrap what loads weights, makes slots and allocates the KV cache, if a file to write to is named."""
    if not os.environ.get(MEMORY_VARIABLE) or not _ROLLUP.is_file():
        return
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.lora_model_runner_mixin import LoRAModelRunnerMixin

    _measure(CPUWorker, "load_model", "load")
    _measure(LoRAModelRunnerMixin, "load_lora_model", "slots")
    _measure(CPUWorker, "initialize_from_config", "kv_cache")


def _measure(owner: Any, method: str, step: str) -> None:
    original: Callable[..., Any] = getattr(owner, method)
    if hasattr(original, "_hotswap_measured"):
        return

    @functools.wraps(original)
    def measured(*arguments: Any, **named: Any) -> Any:
        before, started = anonymous_bytes(), time.monotonic()
        result = original(*arguments, **named)
        seconds = time.monotonic() - started
        _write(step, before, anonymous_bytes(), seconds)
        return result

    measured._hotswap_measured = True  # type: ignore[attr-defined]
    setattr(owner, method, measured)


def anonymous_bytes() -> int:
    """Private memory of this process that no file stands behind, after giving back what is free."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    for line in _ROLLUP.read_text(encoding="ascii").splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    return 0


def _write(step: str, before: int, after: int, seconds: float) -> None:
    line = {"step": step, "before_bytes": before, "after_bytes": after, "seconds": round(seconds, 3)}
    with Path(os.environ[MEMORY_VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
