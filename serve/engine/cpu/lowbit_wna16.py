"""Weight-only layers (4 or 8 bits) where vLLM's CPU kernel cannot compute them.

Defect (vLLM 0.32.0, CPU; crash): `CPUWNA16LinearKernel.can_implement`
(vllm/model_executor/kernels/linear/mixed_precision/cpu.py) looks at the layer, but not at the library: the
operator `cpu_gemm_wna16` is missing in the one for AVX2. Nor does it look at the type of the activations, of
which the operator has bfloat16 and float16 alone. Either way the engine starts, and its first request ends
it. Layers of 8 bits, and sizes that are not multiples of 32, have no CPU kernel at all.
`AutoGPTQConfig` and `AutoAWQConfig` do not admit float32, with which a machine without bfloat16 serves, and
GPTQ of 8 bits is refused by a check that is meant for the GPU kernel Marlin.

Mend: a kernel of our own before vLLM's in the list that vLLM chooses from; which layers it takes is
`kernel_choice.takes_ours`'s to say. It serves the layers of compressed-tensors, GPTQ and AWQ checkpoints.
Where the low-bit kernels do not fit the layer's shape, its weights are dequantised once at load, and the log
says so.

Can go when vLLM's kernel asks for its operator and knows float32 and 8 bits. Importing this module imports
torch and vLLM: only the plugin does, inside vLLM's processes.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear.mixed_precision.cpu import CPUWNA16LinearKernel
from vllm.model_executor.kernels.linear.mixed_precision.MPLinearKernel import (
    MPLinearKernel,
    MPLinearLayerConfig,
)
from vllm.model_executor.layers.quantization import auto_gptq
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig
from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32
from vllm.platforms import PlatformEnum
from vllm.scalar_type import scalar_types

from serve.engine.cpu.kernel_choice import kernel_choice, takes_ours
from serve.engine.cpu.lowbit import ops

logger = logging.getLogger(__name__)

_WEIGHT_TYPES = (scalar_types.uint4, scalar_types.uint4b8, scalar_types.uint8, scalar_types.uint8b128)
_VLLM_ACTIVATIONS = (torch.bfloat16, torch.float16)
_ACTIVATIONS = (*_VLLM_ACTIVATIONS, torch.float32)


def install() -> None:
    """Put the kernel first in vLLM's list; again changes nothing."""
    kernels = linear._POSSIBLE_KERNELS[PlatformEnum.CPU]
    if HotswapWNA16LinearKernel not in kernels:
        kernels.insert(0, HotswapWNA16LinearKernel)
    for config in (AutoGPTQConfig, AutoAWQConfig):
        config.get_supported_act_dtypes = classmethod(lambda _: list(_ACTIVATIONS))
    auto_gptq.verify_marlin_supported = _accept_until_a_kernel_is_chosen


def vllm_can(config: MPLinearLayerConfig) -> bool:
    """Does vLLM's own kernel compute such a layer on this machine, and not only say so?"""
    has_operator = hasattr(torch.ops._C, "cpu_gemm_wna16")
    return (
        has_operator
        and config.act_type in _VLLM_ACTIVATIONS
        and bool(CPUWNA16LinearKernel.can_implement(config)[0])
    )


def fits_lowbit(bits: int, num_columns: int, group: int) -> bool:
    """Can `lowbit.ops` lay out [N, num_columns] in groups of `group` columns (-1: all of them)?"""
    columns = num_columns if group == -1 else group
    return bits in ops.BITS and num_columns % 32 == 0 and columns % 8 == 0 and num_columns % columns == 0


def _accept_until_a_kernel_is_chosen(**_: Any) -> None:
    """Stands for `verify_marlin_supported`, which vLLM's AWQ leaves out on CPUs: the kernels say what they can."""


class HotswapWNA16LinearKernel(MPLinearKernel):  # type: ignore[misc]
    """Weight = (value - zero) * scale, by group of columns; activations are not rounded."""

    @classmethod
    def get_min_capability(cls) -> int:
        return -1

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        if c.weight_type not in _WEIGHT_TYPES:
            return False, f"weights of type {c.weight_type}; there are {', '.join(map(str, _WEIGHT_TYPES))}"
        if c.weight_type.has_bias() == c.zero_points:
            return False, "zero points given twice, or not at all"
        num_columns = c.partition_weight_shape[0]
        if c.group_size != -1 and num_columns % c.group_size:
            return False, f"groups of {c.group_size} do not divide {num_columns} columns"
        if not takes_ours(kernel_choice(), vllm_can=vllm_can(c), compiled=ops.available() == "native"):
            return False, "vLLM's own kernel works here"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        num_columns, num_rows = self.config.partition_weight_shape
        bits = self.config.weight_type.size_bits
        group = self.config.group_size
        values = _unpacked(getattr(layer, self.w_q_name), self.config.weight_type)
        values = values[:num_rows, :num_columns].to(torch.uint8)
        scales = _rows_first(getattr(layer, self.w_s_name)).to(torch.float32)
        zeros = None
        if self.config.zero_points:
            zeros = _unpacked(getattr(layer, self.w_zp_name), self.config.weight_type)
            zeros = zeros[:num_rows].to(torch.uint8).contiguous()
        self._is_packed = fits_lowbit(bits, num_columns, group)
        if self._is_packed:
            weight = ops.pack_wna16(values.contiguous(), bits, group)
        else:
            logger.warning(
                "a %s-bit layer of %d x %d is dequantised to %s: the low-bit kernels want multiples of 32 columns",
                bits,
                num_rows,
                num_columns,
                str(self.config.act_type).removeprefix("torch."),
            )
            zero = self.config.weight_type.bias if zeros is None else zeros
            weight = _dequantised(values, scales, zero).to(self.config.act_type)
            scales, zeros = scales[:0], None
        _replace(layer, self.w_q_name, weight)
        _replace(layer, self.w_s_name, scales.contiguous())
        if self.w_zp_name is not None and hasattr(layer, self.w_zp_name):
            _replace(layer, self.w_zp_name, zeros)

    @property
    def is_packed(self) -> bool:
        """Is the layer computed by the low-bit kernels, and not dequantised?"""
        return self._is_packed

    def apply_weights(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        weight, scales, zeros = self._get_weight_params(layer)
        if not self._is_packed:
            return torch.nn.functional.linear(x, weight, bias)
        rows = x.reshape(-1, x.shape[-1])
        if rows.dtype == torch.float16:  # not among the kernels' types
            rows = rows.float()
        result = ops.linear_wna16(
            rows.contiguous(),
            weight,
            scales,
            zeros,
            bias if bias is None else bias.to(rows.dtype),
            n=self.config.partition_weight_shape[1],
            bits=self.config.weight_type.size_bits,
            group=self.config.group_size,
        )
        return result.to(x.dtype).reshape(*x.shape[:-1], result.shape[-1])


def _rows_first(parameter: Any) -> torch.Tensor:
    """A parameter as [output rows, ...]."""
    data = parameter.data
    return data if parameter.output_dim == 0 else data.t()


def _unpacked(parameter: Any, weight_type: Any) -> torch.Tensor:
    """Values of a parameter that packs them into int32 along either dimension, as int32 [rows, columns]."""
    data = unpack_quantized_values_into_int32(parameter.data, weight_type, parameter.packed_dim)
    return data if parameter.output_dim == 0 else data.t()


def _dequantised(values: torch.Tensor, scales: torch.Tensor, zero: Any) -> torch.Tensor:
    """float32 [N, K]; `zero` is a number or [N, G]."""
    num_rows, num_groups = scales.shape
    grouped = values.reshape(num_rows, num_groups, -1).to(torch.float32)
    offset = zero.unsqueeze(2).to(torch.float32) if isinstance(zero, torch.Tensor) else float(zero)
    return ((grouped - offset) * scales.unsqueeze(2)).reshape(num_rows, -1)


def _replace(layer: torch.nn.Module, name: str, value: torch.Tensor | None) -> None:
    """Put `value` in place of a parameter, which is freed."""
    layer._parameters.pop(name, None)
    parameter = None if value is None else torch.nn.Parameter(value, requires_grad=False)
    layer.register_parameter(name, parameter)
