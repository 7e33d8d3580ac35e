"""Rotates queries of three dimensions as their shape says.

Defect (vLLM 0.32.0, CPU; wrong answers): the CPU kernel `rotary_embedding` takes the distance between two tokens
from `query.stride(-2)`. That is right for [tokens, heads * size]. Of [tokens, heads, size], which DeepSeek's
attention passes, it is the distance between two heads: with several heads all tokens but the first get the rotation
of others. Published DeepSeek models are spared, because their rotary embedding (`yarn`) has a class of its own
without a CPU kernel; bases of that family with the default one are answered wrongly.

Mend: three dimensions are left to vLLM's PyTorch implementation.

Can go when the kernel tells the two shapes apart, as the one for GPUs does.
"""

from __future__ import annotations

import functools
from typing import Any

_MARK = "_hotswap_rotary"


def install() -> None:
    """Keep three-dimensional queries from the CPU kernel; again changes nothing."""
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    original: Any = RotaryEmbedding.forward_cpu
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def forward_cpu(self: Any, positions: Any, query: Any, key: Any = None) -> Any:
        if query.dim() > 2:
            return self.forward_native(positions, query, key)
        return original(self, positions, query, key)

    setattr(forward_cpu, _MARK, True)
    RotaryEmbedding.forward_cpu = forward_cpu
