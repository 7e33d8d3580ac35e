"""`fp8-dynamic`: weights and inputs of 8-bit floating point (E4M3). Made on any machine, served by GPUs."""

from __future__ import annotations

from quantize.schemes.rounding import round_to_nearest, rounded_inputs
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="fp8-dynamic",
    summary="8-bit floating-point weights and inputs; takes seconds, looks at no text",
    weights="float8 (E4M3) with a scale per output",
    weight_bits=8,
    grouped=False,
    calibrated=False,
    serving="served by a GPU alone: vLLM has no FP8 kernel for CPUs",
    modifiers=lambda options: {"QuantizationModifier": round_to_nearest(rounded_inputs("float"), options)},
)
