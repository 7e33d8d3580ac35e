"""The `config_groups` of compressed-tensors that the schemes share: what is rounded how."""

from __future__ import annotations

from typing import Any

from quantize.schemes.scheme import SchemeOptions

_LINEAR = ["Linear"]


def grouped_weights(bits: int, options: SchemeOptions) -> dict[str, Any]:
    """Integer weights with a scale for each group of inputs; inputs are not rounded."""
    return {
        "group_0": {
            "targets": _LINEAR,
            "weights": {
                "num_bits": bits,
                "type": "int",
                "symmetric": options.symmetric,
                "strategy": "group",
                "group_size": options.group_size,
                # Scales are rounded to what they are stored as while weights are rounded to them, not afterwards.
                "scale_dtype": options.scale_dtype,
            },
        }
    }


def rounded_inputs(kind: str) -> dict[str, Any]:
    """8-bit weights with a scale per output; inputs of 8 bits with a scale per token, found as they come."""
    return {
        "group_0": {
            "targets": _LINEAR,
            "weights": {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "channel"},
            "input_activations": {
                "num_bits": 8,
                "type": kind,
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    }


def gptq(config_groups: dict[str, Any], options: SchemeOptions) -> dict[str, Any]:
    """Arguments of GPTQModifier (Frantar et al., arXiv:2210.17323)."""
    return {
        "config_groups": config_groups,
        "ignore": list(options.ignore),
        "actorder": "static" if options.activation_order == "static" else None,
        "block_size": 128,
        "dampening_frac": 0.01,
    }


def round_to_nearest(config_groups: dict[str, Any], options: SchemeOptions) -> dict[str, Any]:
    """Arguments of QuantizationModifier: every weight to the nearest value, whatever the inputs."""
    return {"config_groups": config_groups, "ignore": list(options.ignore)}


def smooth(strength: float = 0.8) -> dict[str, Any]:
    """Arguments of SmoothQuantModifier (Xiao et al., arXiv:2211.10438): outliers of inputs move into weights."""
    return {"smoothing_strength": strength}
