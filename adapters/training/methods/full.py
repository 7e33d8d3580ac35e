"""Full fine-tuning of the linear layers; the difference to the base is exported as LoRA.

Norms and embeddings stay as they are: an adapter that is swapped per request could not carry their change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.training.methods.method import Method
from adapters.training.methods.targets import target_layers

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings


def build(model: Any, settings: TrainSettings) -> Any:
    """The base itself with the weights of the target layers, in float32, requiring gradients."""
    import torch

    model.requires_grad_(False)
    for _, layer in target_layers(model, settings.targets):
        layer.weight.data = layer.weight.data.to(torch.float32)
        layer.weight.requires_grad_(True)
    return model


METHOD = Method(
    name="full",
    summary="every weight of the linear layers; the difference is extracted as LoRA",
    learning_rate=2e-5,
    build=build,
)
