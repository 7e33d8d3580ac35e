"""Entry point of the CPU mends: vLLM calls `register` in each of its processes.

Nothing happens unless the environment variable HOTSWAP_CPU_PATCHES names the parts that are wanted (values of
`CpuPart`, or `all`), or HOTSWAP_LM_HEAD_BITS is 8, and vLLM runs on its CPU platform. The gateway sets both before
it starts the engine; child processes inherit them.

Version rule: on a vLLM in `VERIFIED_VLLM_VERSIONS` every part is applied as asked. On any other version the
speed-ups are left out with a warning, and the correctness mend is applied only if it passes `lora_probe`
there and vLLM itself does not: a mend that is no longer needed goes away by itself.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
from enum import StrEnum
from typing import ClassVar

from bases.errors import HotswapError
from serve.engine.cpu import lm_head_8
from serve.engine.niceness import make_way
from serve.engine.orphan import follow_parent

PATCHES_VARIABLE = "HOTSWAP_CPU_PATCHES"
VERIFIED_VLLM_VERSIONS = frozenset({"0.32.0"})

logger = logging.getLogger(__name__)


class CpuPart(StrEnum):
    """A part that can be switched on by name."""

    DIRECT_ATTENTION = "direct-attention"
    DIRECT_DECODER = "direct-decoder"
    DIRECT_LINEAR = "direct-linear"
    EMBEDDING_COPY = "embedding-copy"
    FORKED_CORE = "forked-core"
    LM_HEAD_16 = "lm-head-16"
    LORA_COMPILED = "lora-compiled"
    LORA_DEVICE = "lora-device"
    LORA_GROUPED = "lora-grouped"
    LORA_ISOLATION = "lora-isolation"
    LORA_TENSORS = "lora-tensors"
    LOWBIT_W8A8 = "lowbit-w8a8"
    LOWBIT_WNA16 = "lowbit-wna16"
    MOE_EXPERTS = "moe-experts"
    NATIVE_NORMS = "native-norms"
    NORMS_16 = "norms-16"
    PLAIN_WEIGHTS = "plain-weights"
    ROTARY = "rotary"
    SLOT_WRITES = "slot-writes"
    UNIPROC = "uniproc"


# Parts that stand alone: the module of that name here is installed on verified versions. In this order, because the
# last to wrap a method of vLLM's is asked first.
_MODULES = {
    CpuPart.MOE_EXPERTS: "moe_experts",
    CpuPart.ROTARY: "rotary",
    CpuPart.UNIPROC: "uniproc",
    CpuPart.FORKED_CORE: "forked_core",
    CpuPart.LORA_DEVICE: "lora_device",
    CpuPart.LORA_TENSORS: "lora_tensors",
    CpuPart.SLOT_WRITES: "slot_writes",
    CpuPart.LOWBIT_WNA16: "lowbit_wna16",
    CpuPart.LOWBIT_W8A8: "lowbit_w8a8",
    CpuPart.PLAIN_WEIGHTS: "plain_weights",
    CpuPart.EMBEDDING_COPY: "embedding_copy",  # after the one above, by which it packs
    CpuPart.LM_HEAD_16: "lm_head_16",
    CpuPart.DIRECT_LINEAR: "direct_linear",
    CpuPart.DIRECT_ATTENTION: "direct_attention",
    CpuPart.NATIVE_NORMS: "native_norms",
    CpuPart.NORMS_16: "norms_16",  # after the one above, to which it leaves what it does not expect
    CpuPart.DIRECT_DECODER: "direct_decoder",  # after the four above, whose paths it holds
}

# Parts that bring the LoRA operations, of which the first that is asked for is used. Each keeps base rows apart.
ISOLATING_PARTS = frozenset({CpuPart.LORA_COMPILED, CpuPart.LORA_GROUPED, CpuPart.LORA_ISOLATION})


class UnknownCpuPartError(HotswapError):
    """HOTSWAP_CPU_PATCHES names a part that does not exist."""

    code: ClassVar[str] = "cpu_part_unknown"


def requested_parts(value: str) -> frozenset[CpuPart]:
    """The parts that a value of HOTSWAP_CPU_PATCHES names; raises UnknownCpuPartError."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    known = {part.value for part in CpuPart}
    unknown = sorted(set(names) - known - {"all"})
    if unknown:
        raise UnknownCpuPartError(
            f"{PATCHES_VARIABLE} names unknown parts {', '.join(unknown)}; "
            f"use {', '.join(sorted(known))} or all"
        )
    return frozenset(CpuPart) if "all" in names else frozenset(CpuPart(name) for name in names)


def register() -> None:
    """Apply the requested parts in this process; again changes nothing. Raises UnknownCpuPartError.

    On any platform an engine process learns to end with its gateway, and to make way for it if it is to.
    """
    follow_parent()
    make_way()
    parts = requested_parts(os.environ.get(PATCHES_VARIABLE, ""))
    if not parts and not lm_head_8.is_requested():
        return
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    import vllm

    verified = vllm.__version__ in VERIFIED_VLLM_VERSIONS
    if CpuPart.LORA_COMPILED in parts and verified:
        _use_punica_wrapper("serve.engine.cpu.lora_compiled.CompiledPunicaWrapper")
    elif CpuPart.LORA_GROUPED in parts and verified:
        _use_punica_wrapper("serve.engine.cpu.lora_grouped.GroupedPunicaWrapper")
    elif parts & ISOLATING_PARTS:
        _use_isolation(vllm.__version__, verified)
    importlib.import_module("serve.engine.cpu.kernel_report").install()
    if multiprocessing.parent_process() is not None:  # not in the gateway, which runs no worker
        importlib.import_module("serve.engine.cpu.start_report").install()
    if verified:
        for part, module in _MODULES.items():
            if part in parts:
                importlib.import_module(f"serve.engine.cpu.{module}").install()
        if lm_head_8.is_requested():
            lm_head_8.install()  # after lm-head-16, whose product it takes the place of
    elif lm_head_8.is_requested():
        logger.warning("vLLM %s is not verified with --lm-head-bits; it is left out", vllm.__version__)
    skipped = parts & {CpuPart.LORA_COMPILED, CpuPart.LORA_GROUPED, *_MODULES}
    if skipped and not verified:
        logger.warning(
            "vLLM %s is not verified with the CPU parts %s; they are left out",
            vllm.__version__,
            ", ".join(sorted(skipped)),
        )


def _use_isolation(vllm_version: str, verified: bool) -> None:
    qualified_name = "serve.engine.cpu.lora_isolation.IsolatedPunicaWrapper"
    if not verified:
        from serve.engine.cpu import lora_probe

        if lora_probe.broken_operations(lora_probe.STOCK_WRAPPER) == ():
            logger.info(
                "vLLM %s keeps base rows apart from adapters by itself; no mend applied", vllm_version
            )
            return
        broken = lora_probe.broken_operations(qualified_name)
        if broken:
            logger.error(
                "vLLM %s mixes adapters into base requests of the same batch on CPU, and the mend does not "
                "fit that version (%s); serve base and adapters apart, or use vLLM %s",
                vllm_version,
                ", ".join(broken),
                ", ".join(sorted(VERIFIED_VLLM_VERSIONS)),
            )
            return
    _use_punica_wrapper(qualified_name)


def _use_punica_wrapper(qualified_name: str) -> None:
    from vllm.platforms.cpu import CpuPlatform

    CpuPlatform.get_punica_wrapper = classmethod(lambda _: qualified_name)
    logger.info("LoRA on CPU uses %s", qualified_name)
