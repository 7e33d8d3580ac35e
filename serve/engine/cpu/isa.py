"""Makes torch and vLLM see a plain AVX2 processor: HOTSWAP_CPU_ISA=avx2, a switch for developers.

vLLM picks its library (`_C`, `_C_AVX512` or `_C_AVX2`) in `CpuPlatform.import_kernels` from what torch says
of the processor, and asks torch again for the kernels of attention and linear layers. torch's own loops,
oneDNN and MKL look at the processor by themselves and are told by their own environment variables.

vLLM calls `pretend` through its entry point `vllm.platform_plugins` in each process, before it loads a
library. What stays different from a real AVX2 machine: MKL obeys its variable on Intel processors alone, and
caches and memory are those of this machine. Answers and kernels are those of an AVX2 machine, the speed is
near.
"""

from __future__ import annotations

import logging
import os
from types import MappingProxyType

from bases.processor import AVX2, ISA_VARIABLE, is_beyond_avx2, simulated_isa

logger = logging.getLogger(__name__)

# Read by torch, oneDNN (torch's and the one inside vLLM's library) and MKL when they first compute.
AVX2_ENVIRONMENT = MappingProxyType(
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
)


def pretend() -> None:
    """Hide what is beyond AVX2 from torch in this process, if asked for; brings no platform of its own."""
    if simulated_isa() != AVX2:
        return
    os.environ.update(AVX2_ENVIRONMENT)
    import torch

    capabilities = torch.cpu.get_capabilities()
    plain = MappingProxyType(
        {
            name: False if isinstance(value, bool) and is_beyond_avx2(name) else value
            for name, value in capabilities.items()
        }
    )
    torch.cpu.get_capabilities = lambda: plain
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        logger.warning(
            "%s=%s came too late for torch's own loops: they run with %s. Set ATEN_CPU_CAPABILITY=avx2 outside",
            ISA_VARIABLE,
            AVX2,
            torch.backends.cpu.get_cpu_capability(),
        )
