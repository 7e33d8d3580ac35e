"""`rtn-w4a16`: what 4 bits cost without calibration; the yardstick for the others."""

from __future__ import annotations

from quantize.schemes.rounding import grouped_weights, round_to_nearest
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="rtn-w4a16",
    summary="4-bit weights rounded to the nearest value; takes seconds, looks at no text",
    weights="int4 with a scale per group",
    weight_bits=4,
    grouped=True,
    calibrated=False,
    modifiers=lambda options: {
        "QuantizationModifier": round_to_nearest(grouped_weights(4, options), options)
    },
)
