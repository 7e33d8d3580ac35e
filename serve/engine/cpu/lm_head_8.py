"""Multiplies by the vocabulary's table in 8 bits, where the user asked for it and its quality was measured.

Not a mend but a trade, and so no part of `--cpu-patches`: `--lm-head-bits 8` rounds the output layer's weights,
32 columns to a scale, for the product of the logits alone. The gateway lets the setting through for a base whose
record passes (`quantize/lm_head/record.py`); this file does as it is told.

The stored table stays: embeddings that are tied to it are looked up as they were, and adapters on `lm_head` add to
the logits as before. Output layers that are quantised already, sharded over ranks, or of a width that the kernels
do not read keep vLLM's product.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from quantize.lm_head.rounding import GROUP, round_table

logger = logging.getLogger(__name__)

BITS_VARIABLE = "HOTSWAP_LM_HEAD_BITS"

_MARK = "_hotswap_lm_head_8"


class _Packed:
    """One output layer's bytes and scales. A layer that stays as it is carries the reason in its place."""

    __slots__ = ("columns", "packed", "rows", "scales")

    def __init__(self, table: Any, packed: Any, scales: Any) -> None:
        self.rows, self.columns = table.shape
        self.packed, self.scales = packed, scales


def is_requested() -> bool:
    """Does the environment ask for the output layer in 8 bits?"""
    return os.environ.get(BITS_VARIABLE) == "8"


def install() -> None:
    """Multiply by output layers in 8 bits from now on; again changes nothing."""
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
    )

    process: Any = UnquantizedEmbeddingMethod.process_weights_after_loading
    if hasattr(process, _MARK):
        return
    apply: Any = UnquantizedEmbeddingMethod.apply

    @functools.wraps(process)
    def process_weights_after_loading(self: Any, layer: Any) -> None:
        # From the weights as they are now: what is done with them next may be a copy in another layout.
        kept = pack(layer) if isinstance(layer, ParallelLMHead) else False
        process(self, layer)
        if kept:
            layer.__dict__.pop("cpu_linear", None)  # oneDNN's copy, which nobody multiplies by any more

    @functools.wraps(apply)
    def apply_packed8(self: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        # A model that multiplies by its embedding has no output layer, and is packed when it first does.
        if not hasattr(layer, _MARK):
            pack(layer)
        kept = getattr(layer, _MARK)
        return multiply(kept, x, bias) if isinstance(kept, _Packed) else apply(self, layer, x, bias)

    setattr(process_weights_after_loading, _MARK, True)
    UnquantizedEmbeddingMethod.process_weights_after_loading = process_weights_after_loading
    UnquantizedEmbeddingMethod.apply = apply_packed8


def pack(layer: Any) -> bool:
    """Round the layer's table and keep it beside the stored one; says whether it did, and logs why not."""
    from serve.engine.cpu.lowbit import ops

    table = layer.weight
    reason = _reason_against(layer)
    if reason is None:
        try:
            values, scales = round_table(table.detach())
        except ValueError as error:
            reason = str(error)
    if reason is not None:
        logger.warning("the output layer is multiplied as it is stored: %s", reason)
        setattr(layer, _MARK, reason)
        return False
    packed = ops.pack_wna16(values, 8, GROUP)
    setattr(layer, _MARK, _Packed(table, packed, scales))
    logger.info("the output layer is multiplied by %s", describe(layer))
    return True


def describe(layer: Any) -> str | None:
    """What became of this layer, with the memory that it takes, for a line of the log; None for other layers."""
    kept = getattr(layer, _MARK, None)
    if not isinstance(kept, _Packed):
        return kept and f"output layer as stored, because {kept}"
    mebibytes = (kept.packed.nbytes + kept.scales.nbytes) / 1024**2
    return f"output layer in 8 bits ({mebibytes:.1f} MiB beside the stored table)"


def multiply(kept: _Packed, x: Any, bias: Any) -> Any:
    """x [..., K] by the rounded table, plus `bias` [N] or None: [..., N] in x's dtype."""
    from serve.engine.cpu.lowbit import ops

    rows = x.reshape(-1, kept.columns).contiguous()
    logits = ops.linear_wna16(rows, kept.packed, kept.scales, None, bias, n=kept.rows, bits=8, group=GROUP)
    return logits.reshape(*x.shape[:-1], kept.rows)


def _reason_against(layer: Any) -> str | None:
    import torch

    table = layer.weight
    ranks = getattr(layer, "tp_size", 1)
    if ranks > 1:
        return f"it is sharded over {ranks} ranks"
    if table.is_meta or table.dtype not in (torch.float32, torch.bfloat16):
        return f"its weights are {table.dtype}"
    return None
