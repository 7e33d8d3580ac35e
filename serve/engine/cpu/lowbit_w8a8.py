"""Layers of 8 bits whose inputs are rounded per token (W8A8), where vLLM's kernel gives wrong sums.

Defect (vLLM 0.32.0, CPU; wrong answers): `CPUInt8ScaledMMLinearKernel` multiplies by oneDNN, which without VNNI
adds two products of 8 bits in 16 bits and cuts off what does not fit. Random int8 weights and inputs are off by
a quarter of the largest sum, and the greedy answers of a tiny base are others. It is slower than float32 there,
too.

Mend: a kernel of our own before vLLM's in the list that vLLM chooses from, for inputs that are rounded
symmetrically and at run time; which layers it takes is `kernel_choice.takes_ours`'s to say. Its sums of integers
are exact. The scale of a token is its largest magnitude / 127.5, as in compressed-tensors, with which bases are
quantised and measured; in vLLM it is / 127. Schemes with fixed scales or zero points of the inputs stay vLLM's;
the gateway refuses them without VNNI.

A second defect, of processors with AMX: there the same class multiplies by a kernel that takes bfloat16 and half
alone, whatever the model computes in, and a model in float32 dies of its first step ("expect A to be bfloat16 or
half"). Mend: in float32 it is told that there is no such kernel, and multiplies by oneDNN.

Can go when vLLM's sums are right without VNNI, and its choice of a kernel looks at the model's type.
Importing this module imports torch and vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

import torch
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear.scaled_mm import cpu
from vllm.model_executor.kernels.linear.scaled_mm.ScaledMMLinearKernel import (
    Int8ScaledMMLinearKernel,
    Int8ScaledMMLinearLayerConfig,
)
from vllm.model_executor.layers.quantization.utils.w8a8_utils import convert_to_channelwise
from vllm.platforms import PlatformEnum, current_platform

from serve.engine.cpu.kernel_choice import kernel_choice, takes_ours
from serve.engine.cpu.lowbit import ops


def install() -> None:
    """Put the kernel first in vLLM's list; again changes nothing."""
    kernels = linear._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU]
    if HotswapW8A8LinearKernel not in kernels:
        kernels.insert(0, HotswapW8A8LinearKernel)
    original = cpu.check_cpu_sgl_kernel
    if getattr(original, "_hotswap", False):
        return

    def takes_the_models_type(n: int, k: int, dtype: torch.dtype) -> bool:
        # While layers are made ready, torch's default is the type that the model computes in.
        if dtype == torch.int8 and torch.get_default_dtype() == torch.float32:
            return False
        return bool(original(n, k, dtype))

    takes_the_models_type._hotswap = True  # type: ignore[attr-defined]
    cpu.check_cpu_sgl_kernel = takes_the_models_type


class HotswapW8A8LinearKernel(Int8ScaledMMLinearKernel):  # type: ignore[misc]
    """int8 weights with a scale for each output row, inputs rounded to int8 with a scale for each token."""

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:  # noqa: ARG003
        return current_platform.is_cpu(), "CPU only"

    @classmethod
    def can_implement(cls, c: Int8ScaledMMLinearLayerConfig) -> tuple[bool, str | None]:
        if c.is_static_input_scheme or not c.input_symmetric:
            return False, "inputs with fixed scales or zero points are vLLM's"
        vllm_can, compiled = torch.cpu._is_vnni_supported(), ops.available() == "native"
        if not takes_ours(kernel_choice(), vllm_can=vllm_can, compiled=compiled):
            return False, "vLLM's own kernel works here"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        weight_name, scale_name = self.layer_param_names[:2]
        weight = getattr(layer, weight_name).data
        scales = getattr(layer, scale_name).data
        if not self.config.is_channelwise:
            scales = convert_to_channelwise(scales, layer.logical_widths)
        self._num_rows = weight.shape[0]
        for name, value in (
            (weight_name, ops.pack_w8a8(weight)),
            (scale_name, scales.to(torch.float32).reshape(-1).contiguous()),
        ):
            layer._parameters.pop(name)
            layer.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))

    def apply_weights(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        weight, scales = self._get_layer_params(layer)[:2]
        rows = x.reshape(-1, x.shape[-1])
        if rows.dtype == torch.float16:  # not among the kernels' types
            rows = rows.float()
        result = ops.linear_w8a8(
            rows.contiguous(),
            weight,
            scales,
            bias if bias is None else bias.to(rows.dtype),
            n=self._num_rows,
        )
        return result.to(x.dtype).reshape(*x.shape[:-1], result.shape[-1])
