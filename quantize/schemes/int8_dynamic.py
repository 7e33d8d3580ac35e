"""`int8-dynamic`: weights and inputs of 8 bits, without calibration."""

from __future__ import annotations

from quantize.schemes.rounding import round_to_nearest, rounded_inputs
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="int8-dynamic",
    summary="8-bit weights and inputs, rounded to the nearest value; takes seconds, looks at no text",
    weights="int8 with a scale per output",
    weight_bits=8,
    grouped=False,
    calibrated=False,
    modifiers=lambda options: {"QuantizationModifier": round_to_nearest(rounded_inputs("int"), options)},
)
