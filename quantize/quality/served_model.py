"""A base in transformers, in float32 on the CPU, that computes what the engine computes from the same files."""

from __future__ import annotations

import warnings
from typing import Any

from adapters.errors import TrainingError
from adapters.training.base_model import load_training_model, quantisation_of, quiet_loading
from bases.errors import BaseInvalidError
from bases.folder import read_json_object
from bases.resolve import ResolvedBase


def load_as_served(base: ResolvedBase) -> Any:
    """The base as a transformers model in float32, in evaluation mode, without gradients.

    Quantised weights are dequantised; the inputs of a layer are rounded where its scheme rounds them (W8A8, FP8),
    by compressed-tensors' own arithmetic. Unquantised weights are taken as they are stored. Raises
    BaseInvalidError for a quantisation that cannot be undone here.
    """
    import torch

    if rounds_activations(base):
        model = _load_rounding(base)
    else:
        try:
            model = load_training_model(base, dtype=torch.float32).model
        except TrainingError as error:
            raise BaseInvalidError(f"{base.name} cannot be measured: {error}") from error
    model.eval()
    model.requires_grad_(False)
    return model


def rounds_activations(base: ResolvedBase) -> bool:
    """Whether the base's scheme rounds the inputs of layers, as its config.json says."""
    if quantisation_of(base) != "compressed-tensors":
        return False
    groups = read_json_object(base.path / "config.json")["quantization_config"].get("config_groups") or {}
    return any(isinstance(group, dict) and group.get("input_activations") for group in groups.values())


def _load_rounding(base: ResolvedBase) -> Any:
    """Dequantised weights, and layers in which compressed-tensors rounds the inputs on their way."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.path, local_files_only=True)
    config.quantization_config["dequantize"] = True
    with quiet_loading(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compressed-tensors' own, about how it loads
        return AutoModelForCausalLM.from_pretrained(
            base.path, config=config, dtype=torch.float32, local_files_only=True
        )
