"""Ways to compute one linear layer, each with enough copies of its weights that they come from memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from benchmarks.lowbit_kernels.shapes import Shape
from serve.engine.cpu.lowbit import blocks, ops

GROUP = 64
REFERENCE = "torch float32"

Call = Callable[[torch.Tensor, int], torch.Tensor]
"""Computes the layer for tokens [M, K] with copy number i of its weights."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One way, for one shape."""

    title: str
    weight_bytes: int
    call: Call
    dtype: torch.dtype = torch.float32  # of the tokens that it is given


def contenders(shape: Shape, working_set_bytes: int) -> list[Contender]:
    """Those that can compute this shape; the reference comes first."""
    torch.manual_seed(0)
    weight = torch.randn(shape.rows, shape.columns) * 0.05
    stored = weight.bfloat16()
    found = [
        _rotating(REFERENCE, weight, working_set_bytes, functional.linear),
        _rotating(
            "torch bfloat16",
            stored,
            working_set_bytes,
            lambda x, w: functional.linear(x.bfloat16(), w),
        ),
        _rotating("ours, bfloat16 weights", stored, working_set_bytes, _stored16),
        *_plain(weight, working_set_bytes),
        *_plain(stored, working_set_bytes),
    ]
    if shape.is_vocabulary:
        return found
    values = torch.randint(0, 16, weight.shape, dtype=torch.uint8)
    eight_bits = torch.randint(0, 256, weight.shape, dtype=torch.uint8)
    scales = torch.rand(shape.rows, shape.columns // GROUP) * 0.01
    row_scale = torch.rand(shape.rows) * 0.01
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(values.int(), 1)
    torch_scales = torch.stack((scales.t(), torch.zeros_like(scales.t())), dim=-1).contiguous()
    return [
        *found,
        _rotating(
            "torch int4",
            packed,
            working_set_bytes,
            lambda x, w: torch.ops.aten._weight_int4pack_mm_for_cpu(x, w, GROUP, torch_scales),
        ),
        _rotating(
            "ours, 4 bits",
            ops.pack_wna16(values, 4, GROUP),
            working_set_bytes,
            lambda x, w: ops.linear_wna16(x, w, scales, None, None, n=shape.rows, bits=4, group=GROUP),
        ),
        _rotating(
            "ours, 8 bits",
            ops.pack_wna16(eight_bits, 8, GROUP),
            working_set_bytes,
            lambda x, w: ops.linear_wna16(x, w, scales, None, None, n=shape.rows, bits=8, group=GROUP),
        ),
        _rotating(
            "ours, int8 x int8",
            ops.pack_w8a8(eight_bits.int().sub(128).to(torch.int8)),
            working_set_bytes,
            lambda x, w: ops.linear_w8a8(x, w, row_scale, None, n=shape.rows),
        ),
    ]


def _plain(weight: torch.Tensor, working_set_bytes: int) -> list[Contender]:
    """What a base that is not quantised is multiplied by: vLLM's oneDNN, and ours where it reads these blocks."""
    from vllm import _custom_ops
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    name = str(weight.dtype).removeprefix("torch.")
    copies = range(_copies(weight, working_set_bytes))
    handlers = [_custom_ops.create_onednn_mm(weight.t(), 32) for _ in copies]
    found = [
        Contender(
            f"vLLM {name}",
            weight.nbytes,
            lambda x, index: _custom_ops.onednn_mm(handlers[index % len(handlers)], x, None),
            weight.dtype,
        )
    ]
    kept = [each for _ in copies if (each := blocks.blocked(weight)) is not None]
    if kept:
        found.append(
            Contender(
                f"ours, {name}",
                weight.nbytes,
                lambda x, index: kept[index % len(kept)].multiply(x, None),
                weight.dtype,
            )
        )
    return found


def _stored16(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return ops.linear_stored16(x, weight, None)


def _rotating(
    title: str,
    weight: torch.Tensor,
    working_set_bytes: int,
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Contender:
    copies = [weight.clone() for _ in range(_copies(weight, working_set_bytes))]
    return Contender(title, weight.nbytes, lambda x, index: product(x, copies[index % len(copies)]))


def _copies(weight: torch.Tensor, working_set_bytes: int) -> int:
    each: int = weight.nbytes
    return max(math.ceil(working_set_bytes / each), 1)
