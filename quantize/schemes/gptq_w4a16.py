"""`gptq-w4a16`: a quarter of the weights' bytes in bfloat16, an eighth of those in float32."""

from __future__ import annotations

from quantize.schemes.rounding import gptq, grouped_weights
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="gptq-w4a16",
    summary="4-bit weights, rounded so that a layer's outputs on the calibration text move least (GPTQ)",
    weights="int4 with a scale per group",
    weight_bits=4,
    grouped=True,
    calibrated=True,
    ordered=True,
    modifiers=lambda options: {"GPTQModifier": gptq(grouped_weights(4, options), options)},
)
