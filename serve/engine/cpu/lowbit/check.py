"""Is a compiled library right on this machine? Run by the build: `python -m serve.engine.cpu.lowbit.check FILE`.

Prints the best instruction set of this processor, or nothing where it has no AVX2, and exits with 1 where a result
differs from PyTorch's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from serve.engine.cpu.lowbit import source, torch_ops

TOLERANCE = 1e-5
"""Largest difference from PyTorch, relative to the largest output: float32 in another order of summation."""

ROUNDING = 2.0**-7
"""The same of outputs in bfloat16, whose last bit that may tip."""

ROWS, COLUMNS, GROUP = 83, 320, 32
TOKENS = (1, 3, 9)


def differences(library: Path) -> tuple[str, list[str]]:
    """The best instruction set of this processor, and what differs with any that it has, one line each."""
    torch.ops.load_library(library)
    select = torch.ops.hotswap_lowbit.select
    found = [f"{isa}: {line}" for isa in source.ISA_FLAGS if select(isa) for line in _differences()]
    return str(select("")), found


def _differences() -> list[str]:
    native = torch.ops.hotswap_lowbit
    generator = torch.Generator().manual_seed(0)
    found: list[str] = []
    for bits in (4, 8):
        values = torch.randint(0, 2**bits, (ROWS, COLUMNS), dtype=torch.uint8, generator=generator)
        zeros = torch.randint(0, 2**bits, (ROWS, COLUMNS // GROUP), dtype=torch.uint8, generator=generator)
        scales = torch.rand(zeros.shape, generator=generator)
        packed, plain = native.pack_wna16(values, bits), torch_ops.pack_wna16(values, bits)
        for tokens in TOKENS:
            x = torch.randn(tokens, COLUMNS, generator=generator)
            got = native.linear_wna16(x, packed, scales, zeros, None, ROWS, bits, GROUP)
            wanted = torch_ops.linear_wna16(x, plain, scales, zeros, None, n=ROWS, bits=bits, group=GROUP)
            found += _difference(f"{bits} bits, {tokens} tokens", got, wanted, TOLERANCE)
            x = x.bfloat16()
            got = native.linear_wna16(x, packed, scales, zeros, None, ROWS, bits, GROUP)
            wanted = torch_ops.linear_wna16(x, plain, scales, zeros, None, n=ROWS, bits=bits, group=GROUP)
            found += _difference(f"{bits} bits, {tokens} tokens of bfloat16", got, wanted, ROUNDING)
    weight = torch.randint(-128, 128, (ROWS, COLUMNS), dtype=torch.int8, generator=generator)
    scale = torch.rand(ROWS, generator=generator)
    for tokens in TOKENS:
        x = torch.randn(tokens, COLUMNS, generator=generator)
        got = native.linear_w8a8(x, native.pack_w8a8(weight), scale, None, ROWS)
        found += _difference(
            f"int8, {tokens} tokens", got, torch_ops.linear_w8a8(x, weight, scale, None), 0.0
        )
        stored = (weight * scale.unsqueeze(1)).bfloat16()
        got = native.linear_stored16(x, stored, None)
        found += _difference(
            f"bfloat16, {tokens} tokens", got, torch_ops.linear_stored16(x, stored, None), TOLERANCE
        )
    return (
        found + _blocks_differences(generator) + _norm_differences(generator) + _lora_differences(generator)
    )


def _blocks_differences(generator: torch.Generator) -> list[str]:
    """Plain weights, where torch's oneDNN has them in blocks that the kernels read."""
    native, onednn = torch.ops.hotswap_lowbit, torch.ops.mkldnn
    found: list[str] = []
    for dtype, tolerance in ((torch.float32, TOLERANCE), (torch.bfloat16, ROUNDING)):
        weight = torch.randn(ROWS, COLUMNS, generator=generator).to(dtype)
        bias = torch.randn(ROWS, generator=generator).to(dtype)
        try:
            packed = onednn._reorder_linear_weight(weight, None)
        except RuntimeError:
            continue
        data, size = onednn.data_ptr(packed), onednn._nbytes(packed)
        layer = torch.classes.hotswap_lowbit.BlockLayer(packed, data, size, weight, max(TOKENS))
        if not layer.is_readable():
            continue
        for tokens in TOKENS:
            x = torch.randn(tokens, COLUMNS, generator=generator).to(dtype)
            got = native.linear_blocks(x, layer.address(), ROWS, bias)
            wanted = x.double() @ weight.double().t() + bias.double()
            found += _difference(f"blocks of {dtype}, {tokens} tokens", got, wanted, tolerance)
    return found


def _norm_differences(generator: torch.Generator) -> list[str]:
    """Norms and SwiGLU in bfloat16; the last bit of both may tip, for torch may add up in another order."""
    native = torch.ops.hotswap_lowbit
    x, residual = torch.randn(2, max(TOKENS), COLUMNS, generator=generator).bfloat16()
    weight = torch.randn(COLUMNS, generator=generator).bfloat16()
    wanted = torch.nn.functional.rms_norm(x.double(), (COLUMNS,), weight.double(), 1e-5)
    found = _difference("norms", native.norm16(x, weight, 1e-5), wanted, ROUNDING)
    got, total = native.add_norm16(x, residual, weight, 1e-5)
    wanted = torch.nn.functional.rms_norm(x.double() + residual.double(), (COLUMNS,), weight.double(), 1e-5)
    found += _difference("norms with an addition", got, wanted, ROUNDING)
    found += _difference("additions before norms", total, x + residual, 0.0)
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    x = torch.randn(1, 2 * COLUMNS, generator=generator).bfloat16()
    wanted = torch.nn.functional.silu(x[:, :COLUMNS].double()) * x[:, COLUMNS:].double()
    got = native.swiglu(x[:1], torch.nn.functional.silu(every))
    return found + _difference("SwiGLU", got, wanted, ROUNDING)


def _lora_differences(generator: torch.Generator) -> list[str]:
    """Two slices, two slots and a row of the base model among the others."""
    native = torch.ops.hotswap_lowbit
    slots, columns = [0, 1, -1, 1, 1, 0, 1, 1], [ROWS, 40]
    found: list[str] = []
    for dtype, tolerance in ((torch.float32, TOLERANCE), (torch.bfloat16, 2.0**-8)):
        a = [torch.randn(2, 1, 9, COLUMNS, generator=generator).to(dtype) for _ in columns]
        b = [torch.randn(2, 1, size, 9, generator=generator).to(dtype) for size in columns]
        x = torch.randn(len(slots), COLUMNS, generator=generator).to(dtype)
        got = torch.zeros(len(slots), sum(columns), dtype=dtype)
        wanted = torch.zeros(got.shape, dtype=torch.float64)
        for row, slot in enumerate(slots):
            if slot >= 0:
                hidden = [x[row].double() @ each[slot, 0].double().T for each in a]
                parts = [h @ each[slot, 0].double().T for h, each in zip(hidden, b, strict=True)]
                wanted[row] = torch.cat(parts)
        layer = torch.classes.hotswap_lowbit.LoraLayer(a, b, columns)
        for slot in range(2):
            layer.lay_out(slot, 9)
        layer.accept()
        plan = native.lora_plan(torch.tensor(slots))
        if native.lora_add(got, x, layer.address(), plan, 1.0) != 0:
            found.append(f"adapters in {dtype}: refused")
        found += _difference(f"adapters in {dtype}", got, wanted, tolerance)
    return found


def _difference(what: str, got: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> list[str]:
    off = float((got - wanted).abs().max() / wanted.abs().max())
    return [] if off <= tolerance else [f"{what}: off by {off:.1e} of the largest output"]


def main() -> int:
    """Compare the library named on the command line; returns the exit status."""
    isa, found = differences(Path(sys.argv[1]))
    sys.stdout.write("\n".join(found or [isa]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
