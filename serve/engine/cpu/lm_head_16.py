"""Keeps the vocabulary's table in bfloat16 where nothing is lost by it, and computes with it in float32.

Defect (vLLM 0.32.0, CPU; speed and memory): served in float32, the table of the vocabulary is widened to
float32 when it is loaded, although the file holds bfloat16. Of a small base with quantised layers it is most
of what a decode step reads. Tied to the embedding, it lies in memory three times: once as loaded, and once
more for each of the two layers in oneDNN's layout.

Mend: a table whose float32 values are all bfloat16's is stored as bfloat16, once, for the embedding and for
the output layer. Lookups are widened again, which is exact; the product widens each weight and sums in
float32. Tables with other values, and machines without the compiled kernels, are left alone.

Can go when vLLM computes an output layer of 16 bits for activations of 32.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

logger = logging.getLogger(__name__)

_MARK = "_hotswap_lm_head_16"
_CHUNK_ROWS = 4096


def install() -> None:
    """Store vocabularies in 16 bits from now on, where that is exact; again changes nothing."""
    import torch
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    from serve.engine.cpu.lowbit import ops

    process: Any = UnquantizedEmbeddingMethod.process_weights_after_loading
    if hasattr(process, _MARK):
        return
    if ops.available() != "native":
        logger.info("the vocabulary stays in float32: %s", ops.reason())
        return
    apply: Any = UnquantizedEmbeddingMethod.apply
    embedding: Any = UnquantizedEmbeddingMethod.embedding

    @functools.wraps(process)
    def process_weights_after_loading(self: Any, layer: Any) -> None:
        if is_stored16(layer) or store16(layer):
            return
        process(self, layer)

    @functools.wraps(apply)
    def apply_stored16(self: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        if not is_stored16(layer):
            return apply(self, layer, x, bias)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        logits = ops.linear_stored16(rows, layer.weight, bias)
        return logits.reshape(*x.shape[:-1], logits.shape[-1])

    @functools.wraps(embedding)
    def embedding_stored16(self: Any, layer: Any, input_: Any) -> Any:
        found = embedding(self, layer, input_)
        return found.to(torch.float32) if is_stored16(layer) else found

    setattr(process_weights_after_loading, _MARK, True)
    UnquantizedEmbeddingMethod.process_weights_after_loading = process_weights_after_loading
    UnquantizedEmbeddingMethod.apply = apply_stored16
    UnquantizedEmbeddingMethod.embedding = embedding_stored16


def is_stored16(layer: Any) -> bool:
    """Is this layer's table one that `store16` has converted? A tied layer shares the table, and so the answer."""
    return hasattr(layer.weight, _MARK)


def store16(layer: Any) -> bool:
    """Convert the layer's float32 table in place if that is exact; says whether it did."""
    import torch

    weight = layer.weight
    if weight.dtype != torch.float32 or weight.is_meta or not _is_exact(weight.data):
        return False
    weight.data = weight.data.to(torch.bfloat16)
    setattr(weight, _MARK, True)
    return True


def _is_exact(table: Any) -> bool:
    """Does every float32 value survive bfloat16? NaNs do not count as survivors."""
    import torch

    chunks = table.split(_CHUNK_ROWS)
    return all(bool((chunk.to(torch.bfloat16).to(torch.float32) == chunk).all()) for chunk in chunks)
