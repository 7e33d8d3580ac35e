"""Lets vLLM's CPU backend run a mixture of experts while adapters are enabled.

Defect (vLLM 0.32.0, CPU; crash): with LoRA enabled, `select_unquantized_moe_backend`
(vllm/model_executor/layers/fused_moe/oracle/unquantized.py) takes the Triton experts without asking the platform.
The CPU build has no Triton: the engine starts, and the first request that reaches an expert ends it with
`AttributeError: module 'triton.language' has no attribute 'float32'`.

Mend: `FusedMoEConfig.is_lora_enabled` is False, so that the experts that the CPU has are taken. Right only while
no adapter reaches the experts, which the gateway sees to with `--lora-target-modules`; if they are not left out,
vLLM says so at the start (`FusedMoEWithLoRA`: "does not support LoRA") instead of dying later.

Can go when vLLM takes CPU experts with LoRA enabled.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

logger = logging.getLogger(__name__)

_MARK = "_hotswap_moe_experts"


def install() -> None:
    """Keep LoRA out of the experts' configuration; again changes nothing."""
    from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig

    original: Any = FusedMoEConfig.__init__
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def configure(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.is_lora_enabled = False

    setattr(configure, _MARK, True)
    FusedMoEConfig.__init__ = configure
    logger.info("experts on CPU run without adapters of their own")
