"""Spares the copy of the embedding that vLLM packs for a product that is never made.

Defect (vLLM 0.32.0, CPU; memory): `UnquantizedEmbeddingMethod.process_weights_after_loading` packs a copy of
every vocabulary table in oneDNN's layout, for the embedding as well as for the output layer. Embeddings are
looked up, not multiplied, so that copy is dead weight: 113 MB of the default base in float32.

Mend: the copy for a layer that is not an output layer is made when somebody multiplies with it (some models
do, when their tables are tied).

Can go when vLLM packs output layers alone.
"""

from __future__ import annotations

import functools
from typing import Any

_MARK = "_hotswap_embedding_copy"


def install() -> None:
    """Pack embeddings when they are first multiplied; again changes nothing."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
    )

    process: Any = UnquantizedEmbeddingMethod.process_weights_after_loading
    if hasattr(process, _MARK):
        return

    @functools.wraps(process)
    def process_weights_after_loading(self: Any, layer: Any) -> None:
        if isinstance(layer, ParallelLMHead):
            process(self, layer)
            return

        def pack_and_multiply(x: Any, weight: Any, bias: Any) -> Any:
            dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
            return layer.cpu_linear(x, weight, bias)

        layer.cpu_linear = pack_and_multiply

    setattr(process_weights_after_loading, _MARK, True)
    UnquantizedEmbeddingMethod.process_weights_after_loading = process_weights_after_loading
