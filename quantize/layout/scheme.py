"""What a compressed-tensors config says about its weights, as far as the GPTQ layout can say it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bases.architecture import read_architecture
from bases.folder import read_json_object
from quantize.layout.errors import LayoutError

_REMEDY = "The layout holds gptq-w4a16 and gptq-w8a16 alone; serve the folder as it is."


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """One scheme for all linear layers. `group_size` is None where a scale counts for a whole row."""

    bits: int
    group_size: int | None
    symmetric: bool

    @property
    def per_word(self) -> int:
        """Values in a 32-bit word."""
        return 32 // self.bits


def read_weight_scheme(folder: Path) -> WeightScheme:
    """The scheme of a compressed-tensors folder. Raises LayoutError where the GPTQ layout cannot express it."""
    quantisation = read_json_object(folder / "config.json").get("quantization_config")
    if not isinstance(quantisation, dict) or quantisation.get("quant_method") != "compressed-tensors":
        found = quantisation.get("quant_method") if isinstance(quantisation, dict) else "nothing"
        raise LayoutError(f"{folder} is quantised with {found}, not with compressed-tensors. {_REMEDY}")
    groups = list((quantisation.get("config_groups") or {}).values())
    weights: list[Any] = [group.get("weights") or {} for group in groups]
    if not weights or any(one != weights[0] for one in weights):
        raise LayoutError(f"{folder} has {len(groups)} schemes for its layers, the layout one. {_REMEDY}")
    if any(group.get("input_activations") or group.get("output_activations") for group in groups):
        raise LayoutError(f"{folder} rounds activations too. {_REMEDY}")
    scheme = weights[0]
    bits, strategy = scheme.get("num_bits"), scheme.get("strategy")
    if scheme.get("type", "int") != "int" or bits not in (4, 8) or strategy not in ("group", "channel"):
        raise LayoutError(
            f"{folder} has weights of type {scheme.get('type')} with {bits} bits per {strategy}. {_REMEDY}"
        )
    if scheme.get("actorder") == "group":
        raise LayoutError(
            f"{folder} has its groups in activation order (actorder: group). Quantise with the order `weight` or "
            "`static`, which keeps groups in place, or without."
        )
    _refuse_ignored(folder, quantisation.get("ignore") or [])
    group_size = int(scheme["group_size"]) if strategy == "group" else None
    return WeightScheme(int(bits), group_size, bool(scheme.get("symmetric", True)))


def _refuse_ignored(folder: Path, ignored: list[str]) -> None:
    """The layout has no list of layers that are left out: all but the output embedding must be quantised."""
    left_out = [
        name for name in read_architecture(folder).linear_modules if any(_names(one, name) for one in ignored)
    ]
    if left_out:
        shown = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        raise LayoutError(f"{folder} leaves {len(left_out)} layers unquantised ({shown}). {_REMEDY}")


def _names(pattern: str, module: str) -> bool:
    """As compressed-tensors matches: `re:` and a pattern for the beginning, or the name."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    return pattern == module
