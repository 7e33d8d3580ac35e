"""RMS norms and SwiGLU in bfloat16, a compiled operator each, with PyTorch's bits.

Defect (vLLM 0.32.0, CPU; speed): in bfloat16 an RMS norm with its addition is ten PyTorch operators, 61 times in a
step of 30 layers: 22 us at one token, of which the arithmetic is less than one. vLLM's C++ operators round in other
places, which changes greedy answers (`native_norms`).

Mend: one operator that rounds where PyTorch's ten do, and sums in torch.sum's order, so that every bit is the same.
SwiGLU of a few rows looks silu up, in a table of all 65,536 values of bfloat16 that torch's own silu made.

The order of torch.sum is no promise of PyTorch's: for each width sums are compared, bit for bit, when a model is
loaded. Where they differ, or without the compiled kernels, `native_norms` or vLLM's own go on.

Can go when vLLM has a norm for CPUs that rounds as its PyTorch form does.
Importing this module imports torch and vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm

from serve.engine.cpu import layer_paths
from serve.engine.cpu.lowbit import ops

WIDEST = 8192
"""Of a norm; the kernel holds a row's float32 values on its stack."""


def install() -> None:
    """Shorten norms and SwiGLU in bfloat16 of models loaded from now on; again changes nothing."""
    layer_paths.install("norms-16", shorten)


def shorten(module: Any) -> Callable[..., Any] | None:
    """A forward for an RMS norm with a weight in bfloat16, or for SwiGLU; None for any other module."""
    if ops.available() != "native":
        return None
    if type(module) is RMSNorm and module.variance_size_override is None and module.has_weight:
        weight = module.weight
        return _norm(module) if weight.dtype == torch.bfloat16 and sums_as_torch(weight.numel()) else None
    if type(module) is SiluAndMul and module._forward_method == module.forward_cpu:
        return _swiglu(module)
    return None


@functools.cache
def sums_as_torch(width: int) -> bool:
    """Do the kernels add up the squares of rows of this width as torch does, bit for bit? False beyond `WIDEST`."""
    if not 0 < width <= WIDEST:
        return False
    rows = torch.randn(64, width, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    found = torch.ops.hotswap_lowbit.sums_of_squares(rows)
    return all(torch.equal(found[:n] / width, rows[:n].pow(2).mean(-1)) for n in (1, len(rows)))


@functools.cache
def silu_table() -> torch.Tensor:
    """silu of each value of bfloat16, by its bits; as torch computes it with vectors, in one thread."""
    values = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    return torch.cat([torch.nn.functional.silu(piece) for piece in values.split(4096)])


def _norm(module: Any) -> Callable[..., Any]:
    normalise = torch.ops.hotswap_lowbit.norm16.default
    add_and_normalise = torch.ops.hotswap_lowbit.add_norm16.default
    parameters, epsilon, bfloat16 = module._parameters, module.variance_epsilon, torch.bfloat16
    before = module.forward

    def forward(x: Any, residual: Any = None) -> Any:
        weight = parameters["weight"]
        if x.dtype != bfloat16 or weight.dtype != bfloat16 or not x.is_contiguous():
            return before(x, residual)
        if residual is None:
            return normalise(x, weight, epsilon)
        if residual.dtype != bfloat16 or not residual.is_contiguous():
            return before(x, residual)
        return add_and_normalise(x, residual, weight, epsilon)

    return forward


def _swiglu(module: Any) -> Callable[..., Any]:
    multiply = torch.ops.hotswap_lowbit.swiglu.default
    table, bfloat16 = silu_table(), torch.bfloat16
    before = module.forward

    def forward(x: Any) -> Any:
        return multiply(x, table) if x.dtype == bfloat16 else before(x)

    return forward
