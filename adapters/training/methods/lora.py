"""LoRA on all linear layers: the default. Hu et al. 2021, https://arxiv.org/abs/2106.09685."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.training.methods.method import Method

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings


def build_lora(model: Any, settings: TrainSettings, **options: Any) -> Any:
    """PEFT's LoRA with the settings' rank, alpha, dropout and targets; `options` go to LoraConfig."""
    from peft import LoraConfig, get_peft_model

    from adapters.training.methods.targets import peft_targets

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=peft_targets(settings.targets),
        bias="none",
        **options,
    )
    return get_peft_model(model, config)


METHOD = Method(
    name="lora", summary="low-rank update of every linear layer", learning_rate=2e-4, build=build_lora
)
