"""DoRA: direction and size of each weight apart. Liu et al. 2024, https://arxiv.org/abs/2402.09353."""

from __future__ import annotations

from functools import partial

from adapters.training.methods.lora import build_lora
from adapters.training.methods.method import Method

METHOD = Method(
    name="dora",
    summary="LoRA with a learned length per output; converted to LoRA when exported",
    learning_rate=2e-4,
    build=partial(build_lora, use_dora=True),
)
