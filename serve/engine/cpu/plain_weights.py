"""Multiplies by plain weights with the compiled kernels, whose memory does not depend on the number of rows.

Defects (vLLM 0.32.0, CPU). Speed: a decode step of one request is little but reading the weights once, and
oneDNN's products of few rows read them at half of what the memory gives. Memory: oneDNN prepares code for each
number of rows that a layer meets, and keeps it (docs/upstream-defects.md, 20).

Mend: the compiled kernels multiply any number of rows (32 without AVX-512), from the blocks in which oneDNN keeps a
weight; oneDNN multiplies more, from the same blocks. A weight is held once, as before. Each row is bit for bit the
same however many stand beside it, which oneDNN's are not.

What vLLM gives to others than oneDNN stays there, and so does a weight whose blocks are not as the kernels know
them: bfloat16 without AVX-512 BF16, for one.

Can go when oneDNN's products of one row are bound by memory, and those of many need no code of their own.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

logger = logging.getLogger(__name__)

_MARK = "_hotswap_plain_weights"


def install() -> None:
    """Multiply by plain weights that are loaded from now on with our kernels; again changes nothing."""
    from vllm.model_executor.layers import utils

    from serve.engine.cpu.lowbit import ops

    dispatch: Any = utils.dispatch_cpu_unquantized_gemm
    if hasattr(dispatch, _MARK):
        return
    if ops.available() != "native":
        logger.info("oneDNN multiplies by plain weights: %s", ops.reason())
        return

    @functools.wraps(dispatch)
    def dispatch_cpu_unquantized_gemm(layer: Any, remove_weight: bool) -> None:
        if not keep(layer, remove_weight=remove_weight):
            dispatch(layer, remove_weight)

    setattr(dispatch_cpu_unquantized_gemm, _MARK, True)
    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def keep(layer: Any, *, remove_weight: bool) -> bool:
    """Give the layer a product of ours, and drop its weight if asked to; says whether it did."""
    import torch

    from serve.engine.cpu.lowbit import blocks

    weight = layer.weight
    if weight.is_meta or weight.ndim != 2 or not _is_onednns(weight):
        return False
    kept = blocks.blocked(weight)
    if kept is None:
        return False
    layer.cpu_linear = lambda x, _weight, bias: kept.multiply(x, bias)
    if remove_weight:
        layer.weight = torch.nn.Parameter(
            torch.empty(0, dtype=weight.dtype, device=weight.device), requires_grad=False
        )
    return True


def _is_onednns(weight: Any) -> bool:
    """Would vLLM give this weight to oneDNN? As its own dispatch asks."""
    from vllm import _custom_ops
    from vllm.model_executor.layers.utils import check_cpu_sgl_kernel
    from vllm.platforms import current_platform

    if current_platform.is_zen_cpu() or not _custom_ops._supports_onednn:
        return False
    return not check_cpu_sgl_kernel(*weight.shape, weight.dtype)
