"""RMS norms by vLLM's C++ operators for CPUs, and SwiGLU with one tensor less.

Defect (vLLM 0.32.0, CPU; speed): `RMSNorm` takes its PyTorch form on CPUs, nine operators for an addition and a
norm: 43 us instead of 3 us at one token, twice in each layer, 2 to 3 ms of a decode step. The library has
`rms_norm` and `fused_add_rms_norm` for CPUs, which nothing calls.

Mend: they are called; in float32, with the addition in place as on GPUs. The sums run in another order, so that
results are equal within rounding. In 16 bits, where near ties are common, even that changed greedy answers (11 of
24 of a small model): there the PyTorch operators stay, called directly and in place, bit for bit the same.
`silu_and_mul` is not taken: faster by 1 us at one token and four times slower from 32 on. SwiGLU is multiplied in
place instead, bit for bit the same.

Can go when vLLM's registry of norms has an entry for CPUs.
Importing this module imports torch and vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm

from serve.engine.cpu import layer_paths


def install() -> None:
    """Shorten norms and SwiGLU of models loaded from now on; again changes nothing."""
    layer_paths.install("native-norms", shorten)


def shorten(module: Any) -> Callable[..., Any] | None:
    """A forward for an RMS norm with a weight, or for SwiGLU; None for any other module."""
    if type(module) is RMSNorm and module.variance_size_override is None and module.has_weight:
        return _norm(module)
    if type(module) is SiluAndMul and module._forward_method == module.forward_cpu:
        return silu_and_mul
    return None


def _norm(module: Any) -> Callable[..., Any]:
    normalise = torch.ops._C.rms_norm.default
    add_and_normalise = torch.ops._C.fused_add_rms_norm.default
    empty_like = torch.empty_like
    parameters, epsilon = module._parameters, module.variance_epsilon
    before = module.forward
    if module.weight.dtype != torch.float32:
        return _norm_of_16_bits(module)

    def forward(x: Any, residual: Any = None) -> Any:
        weight = parameters["weight"]
        # The operators do not look at strides.
        if weight.dtype != x.dtype or not x.is_contiguous():
            return before(x, residual)
        if residual is None:
            output = empty_like(x)
            normalise(output, x, weight, epsilon)
            return output
        if residual.dtype != x.dtype or not residual.is_contiguous():
            return before(x, residual)
        add_and_normalise(x, residual, weight, epsilon)
        return x, residual

    return forward


def _norm_of_16_bits(module: Any) -> Callable[..., Any]:
    parameters, epsilon, float32 = module._parameters, module.variance_epsilon, torch.float32
    before = module.forward

    def forward(x: Any, residual: Any = None) -> Any:
        weight, dtype = parameters["weight"], x.dtype
        if weight.dtype != dtype:
            return before(x, residual)
        wide = x.to(float32)
        if residual is not None:
            wide.add_(residual)
            residual = wide.to(dtype)
        scale = wide.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        output = wide.mul_(scale).to(dtype).mul_(weight)
        return output if residual is None else (output, residual)

    return forward


def silu_and_mul(x: Any) -> Any:
    """silu(gate) * up: x (num_tokens, 2 * width), gate first; returns (num_tokens, width)."""
    width = x.shape[-1] // 2
    return torch.nn.functional.silu(x[..., :width]).mul_(x[..., width:])
