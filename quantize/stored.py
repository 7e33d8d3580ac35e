"""Number formats: what stays unquantised is rounded to what it is stored as before anything is measured on it."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from bases.disk import disk_errors
from bases.folder import TOKENIZER_FILES
from quantize.plan import QuantisationPlan

# What a base is made of besides weights and config. Copied byte for byte, so that the passport's tokenizer is the
# parent's.
_COMPANIONS = (
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
    "NOTICE",
)
_SCALES = ("weight_scale", "weight_global_scale")
_QUANTISED = ("weight", "weight_zero_point", "weight_g_idx", *_SCALES)


def round_unquantised(model: Any, plan: QuantisationPlan, store_dtype: str) -> None:
    """Round every parameter that will not be quantised to `store_dtype`, and keep computing in float32."""
    import torch

    dtype = getattr(torch, store_dtype)
    for module_name, name, parameter in _parameters(model):
        if not (module_name in plan.names and name in _QUANTISED):
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)


def save_quantised(
    model: Any, folder: Path, *, parent: Path, plan: QuantisationPlan, store_dtype: str
) -> None:
    """Write weights, config and everything else that makes a base of them into the empty `folder`.

    `model` is what llm-compressor left: float32 with scales. Scales of groups are stored as `store_dtype`, which
    they were rounded to; scales per output as float32, in which vLLM computes with them. Raises OSError.
    """
    import torch

    dtype = getattr(torch, store_dtype)
    grouped = {layer.name for layer in plan.layers if layer.group_size is not None}
    for module_name, name, parameter in _parameters(model):
        if (
            module_name in plan.names
            and name in _QUANTISED
            and not (name in _SCALES and module_name in grouped)
        ):
            continue
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Attempting to save a model with offloaded modules")
        with disk_errors():
            model.save_pretrained(folder, save_compressed=True)
    for name in _COMPANIONS:
        (folder / name).unlink(missing_ok=True)
        if (parent / name).is_file():
            shutil.copyfile(parent / name, folder / name)


def weight_bytes(folder: Path) -> int:
    """Size of all weight files in `folder`."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _parameters(model: Any) -> Any:
    """(module's name, parameter's own name, parameter) of every parameter, shared ones once."""
    for full, parameter in list(model.named_parameters()):
        module_name, _, name = full.rpartition(".")
        if parameter.is_floating_point():
            yield module_name, name, parameter
