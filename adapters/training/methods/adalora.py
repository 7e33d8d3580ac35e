"""AdaLoRA: rank goes where it helps. Zhang et al. 2023, https://arxiv.org/abs/2303.10512.

PEFT's schedule of ranks counts steps, whose number is open here until time is up. So it gets its own clock: the
run's progress in thousandths (callbacks/adalora.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.training.methods.method import Method

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings

CLOCK_TICKS = 1000
FIRST_TICK = 100  # ranks start to fall here
LAST_TICKS = 300  # ranks are fixed for so many ticks at the end
_SPARE = 1.5  # initial rank over the final average


def build(model: Any, settings: TrainSettings) -> Any:
    """PEFT's AdaLoRA; `rank` is the average that is left at the end."""
    from peft import AdaLoraConfig, get_peft_model

    from adapters.training.methods.targets import peft_targets

    config = AdaLoraConfig(
        task_type="CAUSAL_LM",
        target_r=settings.rank,
        init_r=max(settings.rank + 1, round(settings.rank * _SPARE)),
        tinit=FIRST_TICK,
        tfinal=LAST_TICKS,
        deltaT=1,
        total_step=CLOCK_TICKS,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=peft_targets(settings.targets),
        bias="none",
    )
    return get_peft_model(model, config)


def orthogonality_loss(model: Any) -> Any:
    """How far A and B are from orthonormal, as AdaLoraModel.forward adds it to a loss that a model returns."""
    import torch

    config = model.peft_config["default"]
    distances = []
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            distances.append(torch.linalg.matrix_norm(gram - torch.eye(gram.shape[0], device=gram.device)))
    return config.orth_reg_weight * torch.stack(distances).mean()


METHOD = Method(
    name="adalora",
    summary="LoRA whose rank is spent where it helps; exported at the largest rank",
    learning_rate=2e-3,
    build=build,
    extra_loss=orthogonality_loss,
)
