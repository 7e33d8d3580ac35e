"""OLoRA: starts from a QR decomposition. Büyükakyüz 2024, https://arxiv.org/abs/2406.01775."""

from __future__ import annotations

from functools import partial

from adapters.training.methods.lora import build_lora
from adapters.training.methods.method import Method

METHOD = Method(
    name="olora",
    summary="LoRA that starts from orthonormal directions of the base; exported at twice the rank",
    learning_rate=5e-5,
    build=partial(build_lora, init_lora_weights="olora"),
    changes_base=True,
)
