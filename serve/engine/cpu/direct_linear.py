"""Linear layers under a LoRA wrapper without the wrapper's questions.

Defect (vLLM 0.32.0; speed): `BaseLayerWithLoRA.__getattr__` (vllm/lora/layers/base.py) is Python and runs for each
mention of `base_layer`, seven or more of them in a forward: with 120 layers about a thousand calls in a step, 3 ms
of a decode step of 55 ms with one thread. Each forward also asks anew whether it is split over ranks, whether the
base layer has a forward of its own, and where the bias goes.

Mend: with one rank, a function that holds the base layer multiplies through the base layer's own quantisation
method, whichever that is, and then asks the LoRA operations. Same operators, same order: results are bit for bit
those of vLLM.

Can go when vLLM's wrapper keeps its base layer as a plain attribute.
Importing this module imports vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.lora.layers import (
    ColumnParallelLinearWithLoRA,
    MergedColumnParallelLinearWithLoRA,
    MergedQKVParallelLinearWithLoRA,
    QKVParallelLinearWithLoRA,
    RowParallelLinearWithLoRA,
)
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, UnquantizedLinearMethod

from serve.engine.cpu import layer_paths

_COLUMNS = frozenset(
    {
        ColumnParallelLinearWithLoRA,
        MergedColumnParallelLinearWithLoRA,
        MergedQKVParallelLinearWithLoRA,
        QKVParallelLinearWithLoRA,
    }
)


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
    multiply = base.quant_method.apply
    bias = base.bias
    added_bias, returned_bias = (None, bias) if base.skip_bias_add else (bias, None)
    returns_pair = base.return_bias
    before = layer.forward
    if type(base.quant_method) is UnquantizedLinearMethod and hasattr(base, "cpu_linear"):
        parameters = base._parameters

        def multiply(base: Any, x: Any, bias: Any) -> Any:  # what `apply` comes to on a CPU
            return base.cpu_linear(x, parameters["weight"], bias)

    def forward(input_: Any) -> Any:
        if input_.dim() != 2:
            return before(input_)
        output = multiply(base, input_, added_bias)
        layer.punica_wrapper.add_lora_linear(
            output, input_, layer.lora_a_stacked, layer.lora_b_stacked, 1.0, layer.output_slices
        )
        return (output, returned_bias) if returns_pair else output

    return forward
