"""Linear layers under a LoRA wrapper without the wrapper's questions.

Defect (vLLM 0.32.0; speed): `BaseLayerWithLoRA.__getattr__` (vllm/lora/layers/base.py) is Python and runs for each
mention of `base_layer`, seven or more of them in a forward: with 120 layers about a thousand calls in a step, 3 ms
of a decode step of 55 ms with one thread. Each forward also asks anew whether it is split over ranks, whether the
base layer has a forward of its own, and where the bias goes.

Mend: with one rank, a function that holds the base layer multiplies through the base layer's own quantisation
method, whichever that is, and then asks the LoRA operations. Same operators, same order: results are bit for bit
those of vLLM.

Can go when vLLM's wrapper keeps its base layer as a plain attribute.
Importing this module imports torch and vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.lora.layers import (
    ColumnParallelLinearWithLoRA,
    MergedColumnParallelLinearWithLoRA,
    MergedQKVParallelLinearWithLoRA,
    QKVParallelLinearWithLoRA,
    RowParallelLinearWithLoRA,
)
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, UnquantizedLinearMethod

from serve.engine.cpu import layer_paths
from serve.engine.cpu.lowbit import ops
from serve.engine.cpu.lowbit_w8a8 import HotswapW8A8LinearKernel
from serve.engine.cpu.lowbit_wna16 import HotswapWNA16LinearKernel

_COLUMNS = frozenset(
    {
        ColumnParallelLinearWithLoRA,
        MergedColumnParallelLinearWithLoRA,
        MergedQKVParallelLinearWithLoRA,
        QKVParallelLinearWithLoRA,
    }
)


_DTYPES = frozenset({torch.float32, torch.bfloat16})  # of the low-bit kernels


def install() -> None:
    """Shorten the linear layers with adapters of models loaded from now on; again changes nothing."""
    layer_paths.install("direct-linear", shorten)


def shorten(layer: Any) -> Callable[..., Any] | None:
    """A forward for a LoRA layer over one rank; None for any other module."""
    kind = type(layer)
    if kind not in _COLUMNS and kind is not RowParallelLinearWithLoRA:
        return None
    base = layer.base_layer
    if layer.tp_size != 1 or layer._enable_aux_cuda_stream or base.quant_method is None:
        return None
    if kind is RowParallelLinearWithLoRA:
        if not base.input_is_parallel:
            return None
    elif issubclass(kind, MergedColumnParallelLinearWithLoRA) and _has_own_forward(base):
        return None
    return _forward(layer, base)


def _has_own_forward(base: Any) -> bool:
    """Does the base layer do more than its class in vLLM? Then the wrapper calls it as a whole."""
    return type(base).forward is not MergedColumnParallelLinear.forward


def _forward(layer: Any, base: Any) -> Callable[..., Any]:
    multiply = multiplication(base)
    bias = base.bias
    added_bias, returned_bias = (None, bias) if base.skip_bias_add else (bias, None)
    returns_pair = base.return_bias
    before = layer.forward

    def forward(input_: Any) -> Any:
        if input_.dim() != 2:
            return before(input_)
        output = multiply(base, input_, added_bias)
        layer.punica_wrapper.add_lora_linear(
            output, input_, layer.lora_a_stacked, layer.lora_b_stacked, 1.0, layer.output_slices
        )
        return (output, returned_bias) if returns_pair else output

    return forward


def multiplication(base: Any) -> Callable[[Any, Any, Any], Any]:
    """What `base.quant_method.apply` comes to for this layer on a CPU: (base, x, bias) to the product."""
    parameters = base._parameters
    apply: Callable[[Any, Any, Any], Any] = base.quant_method.apply
    if type(base.quant_method) is UnquantizedLinearMethod and hasattr(base, "cpu_linear"):
        return lambda base, x, bias: base.cpu_linear(x, parameters["weight"], bias)
    kernel = getattr(getattr(base, "scheme", None), "kernel", None)
    if ops.available() != "native":
        return apply
    if isinstance(kernel, HotswapWNA16LinearKernel) and kernel.is_packed:
        return _wna16(kernel, parameters, apply)
    if isinstance(kernel, HotswapW8A8LinearKernel):
        return _w8a8(kernel, parameters, apply)
    return apply


# Our own kernels check their arguments in every call. Those of a layer that has been loaded are right.


def _wna16(kernel: Any, parameters: Any, apply: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    multiply = torch.ops.hotswap_lowbit.linear_wna16.default
    config = kernel.config
    num_columns, num_rows = config.partition_weight_shape
    bits = config.weight_type.size_bits
    group = num_columns if config.group_size == -1 else config.group_size
    weight, scales, zeros = kernel.w_q_name, kernel.w_s_name, kernel.w_zp_name or ""

    def multiply_wna16(base: Any, x: Any, bias: Any) -> Any:
        if bias is not None or x.dtype not in _DTYPES or not x.is_contiguous():
            return apply(base, x, bias)
        return multiply(
            x, parameters[weight], parameters[scales], parameters.get(zeros), None, num_rows, bits, group
        )

    return multiply_wna16


def _w8a8(kernel: Any, parameters: Any, apply: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    multiply = torch.ops.hotswap_lowbit.linear_w8a8.default
    weight, scales = kernel.layer_param_names[:2]
    num_rows = parameters[scales].numel()

    def multiply_w8a8(base: Any, x: Any, bias: Any) -> Any:
        if bias is not None or x.dtype not in _DTYPES or not x.is_contiguous():
            return apply(base, x, bias)
        return multiply(x, parameters[weight], parameters[scales], None, num_rows)

    return multiply_w8a8
