"""Prefix tuning: learned keys and values before every layer. Li and Liang 2021, https://arxiv.org/abs/2101.00190."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.training.methods.method import Method

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings


def build(model: Any, settings: TrainSettings) -> Any:
    """PEFT's prefix tuning with `virtual_tokens` positions."""
    from peft import PrefixTuningConfig, get_peft_model

    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=settings.virtual_tokens)
    return get_peft_model(model, config)


METHOD = Method(
    name="prefix",
    summary="learned keys and values in front of every layer",
    learning_rate=5e-3,
    build=build,
    why_not="it puts learned keys and values into the cache, which has no LoRA form; vLLM 0.32 serves LoRA alone",
    packable=False,
    prompt_learning=True,
)
