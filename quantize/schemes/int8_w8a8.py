"""`int8-w8a8`: weights and inputs of 8 bits, for products in integers.

Without SmoothQuant: that divides what goes into a layer and multiplies its weights, and an adapter of the original
base, whose first factor meets those inputs, would answer something else. `int8-w8a8-smooth` has it.
"""

from __future__ import annotations

from quantize.schemes.rounding import gptq, rounded_inputs
from quantize.schemes.scheme import Scheme

SCHEME = Scheme(
    name="int8-w8a8",
    summary="8-bit weights and inputs, weights rounded with GPTQ",
    weights="int8 with a scale per output",
    weight_bits=8,
    grouped=False,
    calibrated=True,
    ordered=True,
    modifiers=lambda options: {"GPTQModifier": gptq(rounded_inputs("int"), options)},
)
