"""The base as it is trained against: what the gateway serves, as numbers that gradients can pass."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

from adapters.errors import TrainingError
from bases.folder import read_json_object
from bases.resolve import ResolvedBase

_QUANTISATION_TENSORS = (
    "weight_packed",
    "weight_shape",
    "weight_scale",
    "weight_zero_point",
    "weight_global_scale",
    "weight_g_idx",
    "input_scale",
    "input_zero_point",
    "input_global_scale",
)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base model in memory. `note` says what was done to its weights; empty where they are as they lie there."""

    model: Any
    note: str


def quantisation_of(base: ResolvedBase) -> str | None:
    """The quantisation method that the base's config names, e.g. `compressed-tensors`; None without one."""
    quantisation = read_json_object(base.path / "config.json").get("quantization_config")
    return str(quantisation.get("quant_method", "unknown")) if isinstance(quantisation, dict) else None


def load_training_model(base: ResolvedBase, *, dtype: Any, attention: str = "sdpa") -> LoadedModel:
    """Load the base's weights as `dtype` onto the CPU, dequantised where they are compressed.

    An adapter then learns against the rounded weights that are served, and corrects for the rounding as far as it
    can. Raises TrainingError for a quantisation that cannot be undone here.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    method = quantisation_of(base)
    config = AutoConfig.from_pretrained(base.path, local_files_only=True)
    note = ""
    if method == "compressed-tensors":
        config.quantization_config["dequantize"] = True
        note = f"trained against the quantised base: {_scheme(base)} weights were dequantised to {dtype}"
    elif method is not None:
        raise TrainingError(
            f"The base {base.name} is quantised with {method!r}, which cannot be dequantised for training. "
            "Train on a base in compressed-tensors format (hotswap quantize) or on the unquantised one."
        )
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(
            base.path, config=config, dtype=dtype, attn_implementation=attention, local_files_only=True
        )
    if method is not None:
        _forget_quantisation(model, dtype)
    return LoadedModel(model, note)


def _forget_quantisation(model: Any, dtype: Any) -> None:
    """Leave plain layers with plain weights: activations stay unrounded, so that gradients pass."""
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            # compressed-tensors wraps the forward of such a layer and rounds its inputs as long as this is there.
            if hasattr(module, "quantization_status"):
                del module.quantization_status
            del module.quantization_scheme
            module.__dict__.pop("forward", None)
            module.__dict__.pop("_original_forward_func", None)
        for name in _QUANTISATION_TENSORS:
            if name in module._parameters:
                delattr(module, name)
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        model.__dict__.pop(name, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(dtype)


def _scheme(base: ResolvedBase) -> str:
    """A short name of the scheme: number of bits of weights and activations."""
    quantisation = read_json_object(base.path / "config.json")["quantization_config"]
    names = []
    for group in (quantisation.get("config_groups") or {}).values():
        weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
        names.append(f"W{weights.get('num_bits', '?')}A{inputs.get('num_bits', 16)}")
    return "+".join(sorted(set(names))) or "compressed"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bars of transformers and compressed-tensors inside."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # compressed-tensors draws its bars without asking
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
