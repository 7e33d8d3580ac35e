"""One linear layer in the layout of AutoGPTQ and GPTQModel.

qweight  int32 [inputs / per_word, outputs]: value of input `i * per_word + j` in the bits from `j * bits` on
qzeros   int32 [groups, outputs / per_word]: zero points, packed over outputs in the same way
scales   float [groups, outputs]
g_idx    int32 [inputs]: the group of each input

Weight = (value - zero) * scale, all values unsigned. In the first version of the format (`checkpoint_format:
gptq`) a zero point is stored less one, and readers add one again: there a zero point of 0 has no form that every
reader takes for 0. The second version (`gptq_v2`) stores it as it is.
https://github.com/ModelCloud/GPTQModel (gptqmodel/utils/model.py, convert_gptq_v1_to_v2_format)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantize.layout.errors import LayoutError
from quantize.layout.scheme import WeightScheme

PACKED, SCALE, ZERO, SHAPE = "weight_packed", "weight_scale", "weight_zero_point", "weight_shape"
GROUPS = "weight_g_idx"


def to_gptq(name: str, tensors: Mapping[str, Any], scheme: WeightScheme, *, less_one: bool) -> dict[str, Any]:
    """The tensors of one layer by their GPTQ names, from those of compressed-tensors (without the layer's name).

    `less_one` is the first version of the format. Raises LayoutError for sizes that do not divide.
    """
    import torch

    values, zeros, scale = unpack(name, tensors, scheme)
    outputs, inputs = values.shape
    groups = scale.shape[1]
    if inputs % scheme.per_word or outputs % scheme.per_word:
        raise LayoutError(
            f"{name} has {inputs} inputs and {outputs} outputs; the GPTQ layout wants multiples of "
            f"{scheme.per_word} for {scheme.bits} bits. Serve the folder as it is."
        )
    stored_zeros = (zeros - 1) % (1 << scheme.bits) if less_one else zeros
    return {
        "qweight": _pack(values.t(), scheme, dimension=0),
        "qzeros": _pack(stored_zeros.t(), scheme, dimension=1),
        "scales": scale.t().contiguous(),
        "g_idx": (torch.arange(inputs) // (inputs // groups)).to(torch.int32),
    }


def has_zero_at_zero(name: str, tensors: Mapping[str, Any], scheme: WeightScheme) -> bool:
    """Whether a zero point is the lowest value, which the first version of the format cannot store."""
    return not scheme.symmetric and bool((unpack(name, tensors, scheme)[1] == 0).any())


def unpack(name: str, tensors: Mapping[str, Any], scheme: WeightScheme) -> tuple[Any, Any, Any]:
    """(values [outputs, inputs], zero points [outputs, groups], scales [outputs, groups]), the first two unsigned
    as int32."""
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    if GROUPS in tensors:
        raise LayoutError(f"{name} has its groups in activation order, which is not written in this layout.")
    half = 1 << (scheme.bits - 1)
    shape = torch.Size(tensors[SHAPE].tolist())
    values = unpack_from_int32(tensors[PACKED], scheme.bits, shape).to(torch.int32) + half
    scale = tensors[SCALE]
    if scheme.symmetric:
        zeros = torch.full(scale.shape, half, dtype=torch.int32)
    else:
        packed = tensors[ZERO]
        zeros = unpack_from_int32(packed, scheme.bits, scale.shape, packed_dim=0).to(torch.int32) + half
    return values, zeros, scale


def _pack(values: Any, scheme: WeightScheme, *, dimension: int) -> Any:
    """Unsigned int32 values of a matrix into words along `dimension`, the first value in the lowest bits."""
    import torch

    rows = values if dimension == 0 else values.t()
    words = rows.reshape(rows.shape[0] // scheme.per_word, scheme.per_word, rows.shape[1]).to(torch.int64)
    shifts = torch.arange(scheme.per_word)[None, :, None] * scheme.bits
    packed = (words << shifts).sum(dim=1)
    packed = torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)
    return (packed if dimension == 0 else packed.t()).contiguous()
