"""rsLoRA: the scale is alpha / sqrt(rank). Kalajdzievski 2023, https://arxiv.org/abs/2312.03732."""

from __future__ import annotations

from functools import partial

from adapters.training.methods.lora import build_lora
from adapters.training.methods.method import Method

METHOD = Method(
    name="rslora",
    summary="LoRA whose scale does not shrink with the rank",
    learning_rate=1e-4,
    build=partial(build_lora, use_rslora=True),
)
