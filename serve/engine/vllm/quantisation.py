"""How a base is quantised, as its config.json says, and which of it vLLM serves on which device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# vLLM 0.32 refuses these orders (compressed_tensors.py, gptq_utils.py); `static` and `weight` are free.
_MOVING_ORDERS = frozenset({"group", "dynamic"})
_PACKED_METHODS = frozenset({"gptq", "awq"})


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The scheme of a base's weights, in words, and what stands against serving it."""

    method: str  # quant_method of the config
    scheme: str  # e.g. "W4A16 group 64 asymmetric"
    weight_only: bool  # integers times inputs that are not rounded, in at least one layer
    rounds_inputs: bool  # integers times inputs that are rounded to integers, in at least one layer
    floats: bool  # FP8, FP4: weights that vLLM multiplies on GPUs
    fixed_inputs: bool = False  # inputs of integers with scales fixed at calibration, or with zero points
    order: str | None = None  # activation order that vLLM cannot serve
    fault: str | None = None  # another reason why vLLM cannot serve it

    def problem(self, device: Literal["cpu", "cuda"]) -> str | None:
        """Why vLLM cannot serve it on this device, with what to do; None: it can."""
        if self.order is not None:
            return (
                f"its columns are grouped in the order of their activations (actorder={self.order}), which vLLM "
                "serves no longer. Quantise it again with static activation order"
            )
        if self.floats and device == "cpu":
            return f"{self.scheme} needs a GPU. Quantise the base with a scheme of integers, e.g. gptq-w4a16"
        return self.fault


def read_quantisation(config: Mapping[str, Any]) -> Quantisation | None:
    """From a config.json; None where there is no quantisation."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return None
    method = str(found.get("quant_method", "unknown"))
    if method in _PACKED_METHODS:
        return _packed(method, found)
    if method == "compressed-tensors":
        return _compressed_tensors(found)
    return Quantisation(
        method, method, weight_only=False, rounds_inputs=False, floats="fp8" in method or "fp4" in method
    )


def _packed(method: str, found: Mapping[str, Any]) -> Quantisation:
    bits = found.get("bits", found.get("w_bit", 4))
    group = found.get("group_size", found.get("q_group_size", -1))
    symmetric = bool(found.get("sym", True)) if method == "gptq" else not found.get("zero_point", True)
    moving = method == "gptq" and bool(found.get("desc_act")) and group != -1
    fault = None
    if method == "gptq" and not symmetric:
        fault = "vLLM reads symmetric GPTQ checkpoints alone. Quantise it again, or write compressed-tensors"
    return Quantisation(
        method,
        f"{method.upper()} {_integers(bits, None if group == -1 else group, symmetric, None)}",
        weight_only=True,
        rounds_inputs=False,
        floats=False,
        order="group" if moving else None,
        fault=fault,
    )


def _compressed_tensors(found: Mapping[str, Any]) -> Quantisation:
    groups = found.get("config_groups")
    schemes, order = [], None
    weight_only = rounds_inputs = floats = fixed = False
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights, inputs = group.get("weights") or {}, group.get("input_activations")
        if str(weights.get("actorder")).lower() in _MOVING_ORDERS:
            order = str(weights["actorder"]).lower()
        if weights.get("type") == "float":
            floats = True
            schemes.append(f"FP{weights.get('num_bits', '?')}")
            continue
        weight_only, rounds_inputs = weight_only or not inputs, rounds_inputs or bool(inputs)
        fixed = fixed or bool(inputs and not (inputs.get("dynamic") and inputs.get("symmetric", True)))
        size = weights.get("group_size") if weights.get("strategy") == "group" else None
        bits = inputs.get("num_bits") if inputs else None
        schemes.append(
            _integers(weights.get("num_bits", "?"), size, bool(weights.get("symmetric", True)), bits)
        )
    scheme = ", ".join(dict.fromkeys(schemes)) or "compressed-tensors"
    return Quantisation(
        "compressed-tensors", scheme, weight_only, rounds_inputs, floats, fixed_inputs=fixed, order=order
    )


def _integers(bits: object, group: object, symmetric: bool, activation_bits: object) -> str:
    """`W4A16 group 64 asymmetric`: `group` None is a scale for each output channel."""
    parts = [f"W{bits}A{activation_bits or 16}", "per channel" if group is None else f"group {group}"]
    return " ".join(parts if symmetric else [*parts, "asymmetric"])
