"""`awq-w4a16`: activation-aware weight quantisation (Lin et al., arXiv:2306.00978)."""

from __future__ import annotations

from quantize.schemes.rounding import grouped_weights, round_to_nearest
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="awq-w4a16",
    summary="4-bit weights, scaled beforehand so that the inputs that matter are rounded least (AWQ)",
    weights="int4 with a scale per group",
    weight_bits=4,
    grouped=True,
    calibrated=True,
    modifiers=lambda options: {
        "AWQModifier": {"duo_scaling": True},
        "QuantizationModifier": round_to_nearest(grouped_weights(4, options), options),
    },
)
