"""The compiled kernels in this process: loaded once, or why PyTorch does their work. Compiles nothing."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bases.processor import simulated_isa
from bases.settings import BasesSettings
from serve.engine.cpu.lowbit import source

logger = logging.getLogger(__name__)

NATIVE, TORCH = "native", "torch"


@dataclass(frozen=True, slots=True)
class Kernels:
    """What computes low-bit layers in this process."""

    kind: str
    """"native" or "torch"."""
    reason: str
    """Why, one clause."""
    isa: str = ""
    """Instruction set of the native kernels: "avx2", "avx512" or "avx512bf16"."""


_lock = threading.Lock()
_loaded: Kernels | None = None


def kernels() -> Kernels:
    """What is in use here; loads the library at the first call and says so in the log, once."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                found = load(BasesSettings().home)
                level = logging.INFO if found.kind == NATIVE else logging.WARNING
                logger.log(
                    level, "Low-bit layers and adapters are computed by %s: %s", _title(found), found.reason
                )
                _loaded = found
    return _loaded


def load(home: Path) -> Kernels:
    """Load the library that set-up made in `home`. Raises UnknownIsaError for a bad HOTSWAP_CPU_ISA."""
    wanted = simulated_isa() or ""
    path = source.find_library(home)
    if path is None:
        return Kernels(
            TORCH,
            f"there is no compiled library in {source.library_folder(home)}; "
            f"`HOTSWAP_HOME={home} hotswap setup` builds it",
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return Kernels(TORCH, f"{path} cannot be loaded ({error}); remove its folder and run `make install`")
    isa = str(torch.ops.hotswap_lowbit.select(wanted))
    if not isa:
        return Kernels(TORCH, "this processor has no AVX2 and FMA")
    _describe_outputs()
    return Kernels(NATIVE, f"{path} with {isa.upper()}", isa)


def _title(found: Kernels) -> str:
    return "the compiled kernels" if found.kind == NATIVE else "PyTorch, several times slower"


_described = False


def _describe_outputs() -> None:
    """Tell torch.compile what the operators return, once in a process."""
    global _described
    if _described:
        return
    _described = True
    describe = torch.library.register_fake
    describe("hotswap_lowbit::linear_wna16", _like_wna16)
    describe("hotswap_lowbit::linear_w8a8", _like_w8a8)
    describe("hotswap_lowbit::linear_stored16", _like_stored16)
    describe("hotswap_lowbit::linear_blocks", _like_blocks)


def _like_wna16(
    x: torch.Tensor, _packed: Any, _scales: Any, _zeros: Any, _bias: Any, n: int, _bits: int, _group: int
) -> torch.Tensor:
    return x.new_empty(x.shape[0], n)


def _like_w8a8(x: torch.Tensor, _packed: Any, _weight_scale: Any, _bias: Any, n: int) -> torch.Tensor:
    return x.new_empty(x.shape[0], n)


def _like_stored16(x: torch.Tensor, weight: torch.Tensor, _bias: Any) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def _like_blocks(x: torch.Tensor, _layer: Any, n: int, _bias: Any) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], n)
