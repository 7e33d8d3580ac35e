"""Whose kernel computes a quantised linear layer on a CPU: vLLM's or Hotswap's.

HOTSWAP_CPU_KERNELS (`--cpu-kernels`) is `auto`, `hotswap` or `vllm`. The last two take one side wherever that
side works; a layer that only one side can compute goes there in any case.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import ClassVar

from bases.errors import HotswapError

KERNELS_VARIABLE = "HOTSWAP_CPU_KERNELS"


class KernelChoice(StrEnum):
    """A value of HOTSWAP_CPU_KERNELS."""

    AUTO = "auto"
    HOTSWAP = "hotswap"
    VLLM = "vllm"


class UnknownKernelChoiceError(HotswapError):
    """HOTSWAP_CPU_KERNELS names a side that does not exist."""

    code: ClassVar[str] = "cpu_kernels_unknown"


def kernel_choice() -> KernelChoice:
    """What the environment says, `auto` without; raises UnknownKernelChoiceError."""
    value = os.environ.get(KERNELS_VARIABLE) or KernelChoice.AUTO
    try:
        return KernelChoice(value)
    except ValueError:
        raise UnknownKernelChoiceError(
            f"{KERNELS_VARIABLE}={value} is not a choice; use {', '.join(KernelChoice)}"
        ) from None


def takes_ours(choice: KernelChoice, *, vllm_can: bool, compiled: bool) -> bool:
    """Does a layer go to our kernel? By itself where ours was compiled, or where vLLM's does not work.

    Of weight-only layers vLLM's was measured slower (benchmarks/LOG.md). Of layers that round their inputs, ours
    rounds as compressed-tensors does, as which the quality of a base is measured; vLLM's does not.
    """
    if choice == KernelChoice.AUTO:
        return compiled or not vllm_can
    return choice == KernelChoice.HOTSWAP or not vllm_can
