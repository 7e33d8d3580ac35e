"""`int8-w8a8-smooth`: as int8-w8a8 behind SmoothQuant, for bases whose inputs have outliers."""

from __future__ import annotations

from quantize.schemes.rounding import gptq, rounded_inputs, smooth
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="int8-w8a8-smooth",
    summary="8-bit weights and inputs: outliers of inputs moved into weights (SmoothQuant), then GPTQ",
    weights="int8 with a scale per output",
    weight_bits=8,
    grouped=False,
    calibrated=True,
    ordered=True,
    modifiers=lambda options: {
        "SmoothQuantModifier": smooth(),
        "GPTQModifier": gptq(rounded_inputs("int"), options),
    },
)
