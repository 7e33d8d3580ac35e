"""Asks a CPU LoRA wrapper whether it keeps the rows of a mixed batch apart; milliseconds, no model.

Run by the plugin on vLLM versions it does not know, by the tests, and by whoever wants to know whether the
installed vLLM still has the defect that `lora_isolation` mends.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

STOCK_WRAPPER = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"

_NUM_SLOTS, _RANK, _WIDTH = 3, 2, 4


def broken_operations(qualified_name: str) -> tuple[str, ...]:
    """The operations of the wrapper class that give a row another row's adapter; () when all are right."""
    module_name, _, class_name = qualified_name.rpartition(".")
    wrapper_class = getattr(importlib.import_module(module_name), class_name)
    broken = []
    for is_prefill in (True, False):
        for operation in ("linear", "logits", "embedding"):
            try:
                is_right = _rows_stay_apart(wrapper_class, operation, is_prefill)
            except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
                is_right = False  # the class does not fit this vLLM
            if not is_right:
                broken.append(f"{operation} ({'prefill' if is_prefill else 'decode'})")
    return tuple(broken)


def _rows_stay_apart(wrapper_class: Any, operation: str, is_prefill: bool) -> bool:
    """Three slots whose adapters add 10, 20 and 30; a base row must stay as it was."""
    import torch

    wrapper = wrapper_class(8, 8, device=torch.device("cpu"))
    adapter_ids = (1, 0, 3)  # per row; 0 is the base model; id n lies in slot n - 1
    wrapper.update_metadata(
        SimpleNamespace(index_mapping=adapter_ids, prompt_mapping=adapter_ids, is_prefill=is_prefill),
        [1, 2, 3],
        _NUM_SLOTS + 1,
        _WIDTH,
    )
    x = torch.ones(3, _WIDTH)
    a = torch.full((_NUM_SLOTS, 1, _RANK, _WIDTH), 1 / _WIDTH)
    b = torch.stack([torch.full((1, _WIDTH, _RANK), 10.0 * (slot + 1) / _RANK) for slot in range(_NUM_SLOTS)])
    y = torch.zeros(3, _WIDTH)
    if operation == "linear":
        wrapper.add_lora_linear(y, x, (a,), (b,), 1.0, (_WIDTH,))
    elif operation == "logits":
        wrapper.add_lora_logits(y, x, a, b, 1.0)
    else:
        wrapper.add_lora_embedding(y, torch.ones(3, _RANK), b, add_input=True)
    expected = torch.tensor([10.0, 0.0, 30.0]).unsqueeze(1).expand(3, _WIDTH)
    return bool(torch.allclose(y, expected))
