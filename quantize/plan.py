"""Which layers a recipe rounds, and how: worked out on the model's layout, before any weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What vLLM's integer kernels for CPUs ask of a layer's inputs and outputs (cpu_gemm_wna16, 0.32).
CPU_KERNEL_MULTIPLE = 32
GROUP_SIZES = (128, 64, 32)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One linear layer that will be rounded."""

    name: str
    inputs: int
    outputs: int
    bits: int
    group_size: int | None
    """Inputs that share a scale; None for one scale per output or fewer."""


@dataclass(frozen=True, slots=True)
class QuantisationPlan:
    """What a recipe does to a base."""

    layers: tuple[LayerPlan, ...]
    left_alone: tuple[str, ...]
    """Linear layers that stay as they are, output embedding apart."""
    embeddings: tuple[str, ...]
    """Embeddings and output embeddings that the recipe would round."""
    rounds_inputs: bool
    moves_scales: bool
    """Whether scales move between layers, so that adapters of the original do not fit."""
    calibrated_passes: int
    """Passes over the layers that look at calibration text."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(layer.name for layer in self.layers)

    @property
    def widest(self) -> int:
        """Most inputs of a layer."""
        return max((layer.inputs for layer in self.layers), default=1)


def default_group_size(widths: set[int]) -> int | None:
    """The largest of GROUP_SIZES that divides every width; None where none does."""
    return next((size for size in GROUP_SIZES if all(width % size == 0 for width in widths)), None)


def make_plan(folder: Path, modifiers: list[Any]) -> QuantisationPlan:
    """The layers of the base in `folder` that `modifiers` of llm-compressor round."""
    import torch
    from compressed_tensors.utils import match_named_modules
    from llmcompressor.modifiers.quantization import QuantizationMixin
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    layers: dict[str, LayerPlan] = {}
    embeddings: list[str] = []
    rounds_inputs = False
    for modifier in modifiers:
        if not isinstance(modifier, QuantizationMixin) or not modifier.has_config():
            continue
        for scheme in modifier.resolved_config.config_groups.values():
            rounds_inputs = rounds_inputs or scheme.input_activations is not None
            if scheme.weights is None:
                continue
            for name, module in match_named_modules(model, scheme.targets, modifier.ignore):
                if id(module) in ends:
                    embeddings.append(name)
                elif isinstance(module, torch.nn.Linear):
                    group = scheme.weights.group_size
                    layers[name] = LayerPlan(
                        name,
                        module.in_features,
                        module.out_features,
                        scheme.weights.num_bits,
                        group if group and group > 0 else None,
                    )
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) not in ends
    ]
    return QuantisationPlan(
        layers=tuple(layers.values()),
        left_alone=tuple(name for name in linear if name not in layers),
        embeddings=tuple(sorted(set(embeddings))),
        rounds_inputs=rounds_inputs,
        moves_scales=any(not isinstance(modifier, QuantizationMixin) for modifier in modifiers),
        calibrated_passes=sum(bool(modifier.requires_calibration_data) for modifier in modifiers),
    )
