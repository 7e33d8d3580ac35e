"""Prompt tuning: learned embeddings before the text. Lester et al. 2021, https://arxiv.org/abs/2104.08691."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.training.methods.method import Method

if TYPE_CHECKING:
    from adapters.training.settings import TrainSettings


def build(model: Any, settings: TrainSettings) -> Any:
    """PEFT's prompt tuning with `virtual_tokens` embeddings."""
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=settings.virtual_tokens)
    return get_peft_model(model, config)


METHOD = Method(
    name="prompt",
    summary="learned embeddings in front of the text",
    learning_rate=3e-2,
    build=build,
    why_not="it puts learned embeddings before the text, which has no LoRA form; vLLM 0.10 removed prompt adapters",
    packable=False,
    prompt_learning=True,
)
