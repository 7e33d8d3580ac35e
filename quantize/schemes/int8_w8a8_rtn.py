"""`int8-w8a8-rtn`: SmoothQuant as it was published, with weights rounded to the nearest value."""

from __future__ import annotations

from quantize.schemes.rounding import round_to_nearest, rounded_inputs, smooth
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="int8-w8a8-rtn",
    summary="8-bit weights and inputs: SmoothQuant, then weights rounded to the nearest value",
    weights="int8 with a scale per output",
    weight_bits=8,
    grouped=False,
    calibrated=True,
    modifiers=lambda options: {
        "SmoothQuantModifier": smooth(),
        "QuantizationModifier": round_to_nearest(rounded_inputs("int"), options),
    },
)
