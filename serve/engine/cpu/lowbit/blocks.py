"""Plain weights that are held once, for the products of the compiled kernels and for what is left to oneDNN.

oneDNN lays a weight out in blocks of 64 outputs, as the compiled kernels like it too. torch's own oneDNN tells
where the blocks lie, which vLLM's does not; its products are those of vLLM's, bit for bit. The layout is no promise
of oneDNN's: each weight is compared with its blocks before it is used.
"""

from __future__ import annotations

import torch

from serve.engine.cpu.lowbit import library

DTYPES = frozenset({torch.float32, torch.bfloat16})

MOST_ROWS_WITH_AMX = 8
"""Beyond about so many rows arithmetic counts, and AMX multiplies bfloat16 many times faster than AVX-512 does."""

_NO_LIMIT = 2**63 - 1


class BlockedWeight:
    """A weight [N, K] in blocks. Any number of threads may multiply by it at once."""

    __slots__ = ("_address", "_layer", "_multiply", "num_outputs")

    def __init__(self, layer: torch.ScriptObject, num_outputs: int) -> None:
        """`layer`: a readable BlockLayer of `num_outputs` rows."""
        self._layer = layer  # keeps what lies at the address
        self._address: int = layer.address()
        self._multiply = torch.ops.hotswap_lowbit.linear_blocks.default
        self.num_outputs = num_outputs

    @property
    def most_rows(self) -> int:
        """Up to so many rows the compiled kernels multiply."""
        return int(self._layer.most_rows())

    def multiply(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x [..., K] @ weight.T + bias [N] in x's type, which is the weight's; summed in float32.

        Of up to `most_rows` rows each is bit for bit the same however many stand beside it.
        """
        product: torch.Tensor = self._multiply(x, self._address, self.num_outputs, bias)
        return product


def blocked(weight: torch.Tensor) -> BlockedWeight | None:
    """A copy of `weight` [N, K] in blocks; None where types, kernels, processor or layout are not for that."""
    if weight.dtype not in DTYPES or weight.ndim != 2 or not weight.numel():
        return None
    if library.kernels().kind != library.NATIVE or not torch.backends.mkldnn.is_available():
        return None
    onednn = torch.ops.mkldnn
    given = weight.detach().contiguous()
    try:
        packed = onednn._reorder_linear_weight(given, None)
    except RuntimeError:  # bfloat16 on a processor for which torch's oneDNN does not take it
        return None
    has_amx = given.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    layer = torch.classes.hotswap_lowbit.BlockLayer(
        packed,
        onednn.data_ptr(packed),
        onednn._nbytes(packed),
        given,
        MOST_ROWS_WITH_AMX if has_amx else _NO_LIMIT,
    )
    return BlockedWeight(layer, given.shape[0]) if layer.is_readable() else None
