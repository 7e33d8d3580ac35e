"""PiSSA: starts from the largest singular vectors. Meng et al. 2024, https://arxiv.org/abs/2404.02948."""

from __future__ import annotations

from functools import partial

from adapters.training.methods.lora import build_lora
from adapters.training.methods.method import Method

METHOD = Method(
    name="pissa",
    summary="LoRA that starts from the base's principal directions; exported at twice the rank",
    learning_rate=5e-5,
    build=partial(build_lora, init_lora_weights="pissa"),
    changes_base=True,
)
