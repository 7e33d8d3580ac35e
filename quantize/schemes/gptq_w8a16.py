"""`gptq-w8a16`: half of the weights' bytes in bfloat16, with next to no loss."""

from __future__ import annotations

from quantize.schemes.rounding import gptq, grouped_weights
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="gptq-w8a16",
    summary="8-bit weights with GPTQ; inputs are not rounded",
    weights="int8 with a scale per group",
    weight_bits=8,
    grouped=True,
    calibrated=True,
    ordered=True,
    modifiers=lambda options: {"GPTQModifier": gptq(grouped_weights(8, options), options)},
)
