"""Adapters on layers whose weight tensor the kernel has released.

Defect (vLLM 0.32.0, CPU; crash): `_get_lora_device` (vllm/lora/layers/utils.py) asks a layer that has an
attribute `weight` for the device of that weight. `CPUInt8ScaledMMLinearKernel` sets it to None when oneDNN
holds the weights: with LoRA enabled, a W8A8 base ends the engine at load with `AttributeError: 'NoneType'
object has no attribute 'device'`.

Mend: where the weight is None, the device is the CPU; there is no other on this platform.

Can go when `_get_lora_device` looks at tensors that are there.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

_MARK = "_hotswap_lora_device"


def install() -> None:
    """Mend the function wherever vLLM has imported it by name; again changes nothing."""
    import torch
    from vllm.lora.layers import utils

    original: Any = utils._get_lora_device
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def get_lora_device(base_layer: Any) -> torch.device:
        if getattr(base_layer, "weight", base_layer) is None:
            return torch.device("cpu")
        device: torch.device = original(base_layer)
        return device

    setattr(get_lora_device, _MARK, True)
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.lora.") and getattr(module, "_get_lora_device", None) is original:
            module._get_lora_device = get_lora_device  # type: ignore[attr-defined]
