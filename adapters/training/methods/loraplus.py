"""LoRA+: B learns faster than A. Hayou et al. 2024, https://arxiv.org/abs/2402.12354."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.training.methods.lora import build_lora
from adapters.training.methods.method import Method

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings


def create_optimizer(
    model: Any, optimizer_class: Any, settings: TrainSettings, options: dict[str, Any]
) -> Any:
    """PEFT's LoRA+ groups: A at the learning rate, B at `loraplus_ratio` times it."""
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model,
        optimizer_class,
        loraplus_lr_ratio=settings.loraplus_ratio,
        loraplus_weight_decay=settings.weight_decay,
        **options,
    )


METHOD = Method(
    name="loraplus",
    summary="LoRA with a higher learning rate for B",
    learning_rate=1e-4,
    build=build_lora,
    create_optimizer=create_optimizer,
)
