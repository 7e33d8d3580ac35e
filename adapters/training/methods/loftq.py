"""LoftQ: A and B start as what the rounding of a quantised base lost. Li et al. 2023,
https://arxiv.org/abs/2310.08659.

The paper rounds the base while it trains. Here the base that is served is rounded already: A and B start as the
best approximation, of their rank, of the unquantised weights less the rounded ones. The base stays as it is served,
so the adapter is exported as it is. PEFT's own LoftQ rounds to bitsandbytes' 4-bit floats, which no adapter on an
unrounded base can take back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.errors import TrainingSettingsError
from adapters.training.methods.lora import build_lora
from adapters.training.methods.method import Method

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings


def build(model: Any, settings: TrainSettings) -> Any:
    """LoRA whose first product is the low-rank part of the quantisation error of every adapted layer."""
    import torch
    from peft.tuners.lora import LoraLayer

    adapted = build_lora(model, settings)
    original = _original_weights(settings)
    with torch.no_grad():
        for name, layer in adapted.get_base_model().named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            weight = layer.get_base_layer().weight
            lost = _weight(original, name, weight).to(weight.device) - weight.float()
            left, sizes, right = torch.linalg.svd(lost, full_matrices=False)
            rank, scale = layer.r["default"], layer.scaling["default"]
            roots = (sizes[:rank] / scale).sqrt()
            layer.lora_A["default"].weight.copy_(roots[:, None] * right[:rank])
            layer.lora_B["default"].weight.copy_(left[:, :rank] * roots)
    return adapted


def _original_weights(settings: TrainSettings) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from adapters.training.base_model import quiet_loading
    from bases.resolve import resolve_base

    if settings.original_base is None:
        raise TrainingSettingsError("--method loftq needs --original-base, the base before it was quantised")
    base = resolve_base(settings.original_base, home=settings.home)
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32, local_files_only=True)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _weight(original: dict[str, Any], name: str, quantised: Any) -> Any:
    weight = original.get(f"{name}.weight")
    if weight is None or weight.shape != quantised.shape:
        found = "no such layer" if weight is None else f"one of {tuple(weight.shape)}"
        raise TrainingSettingsError(
            f"--original-base: {name} has {tuple(quantised.shape)} weights in the quantised base and there is "
            f"{found} in this one; name the base that was quantised"
        )
    return weight


METHOD = Method(
    name="loftq",
    summary="LoRA that starts as what quantisation lost; needs a quantised base and its original",
    learning_rate=2e-4,
    build=build,
)
