"""Tiny models that learned something at random, one for each way of training that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bases.passport import Passport, read_passport
from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = [[7 + 11 * row + 3 * column for column in range(5 + row)] for row in range(20)]

EXACT_KINDS = ("lora", "rslora", "patterns", "pissa", "olora", "adalora")
CONVERTED_KINDS = ("dora", "full", "loha")
OTHER_KINDS = ("lokr", "vera", "oft", "miss")  # more of PEFT's, which need no vLLM of their own
KINDS = (*EXACT_KINDS, *CONVERTED_KINDS)


@dataclass(frozen=True)
class TinyBase:
    """A tiny base on disk with its passport."""

    resolved: ResolvedBase
    passport: Passport

    def load(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.resolved.path, dtype=torch.float32)


def make_base(folder: Path, architecture: Literal["llama", "qwen2"] = "llama", **options: Any) -> TinyBase:
    path = make_tiny_base(folder / f"tiny-{architecture}", architecture=architecture, **options)
    resolved = resolve_base(str(path), home=folder / "home", progress=lambda _: None)
    return TinyBase(resolved, read_passport(resolved, home=folder / "home", progress=lambda _: None))


def train(base: TinyBase, kind: str, *, initial_folder: Path | None = None, seed: int = 0) -> Any:
    """A model of that kind whose adapter holds random, non-zero values, as after training."""
    import torch

    torch.manual_seed(seed)
    model = base.load()
    if kind == "full":
        _disturb(model, lambda name: name.endswith("_proj.weight"), 0.02)
        return model.eval()
    from peft import get_peft_model

    model = get_peft_model(model, _config(kind))
    if initial_folder is not None:
        model.save_pretrained(initial_folder)
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    _disturb(model, lambda name: name in learned, 0.05)
    if kind == "adalora":
        _prune(model)
    return model.eval()


def _config(kind: str) -> Any:
    from peft import (
        AdaLoraConfig,
        IA3Config,
        LoHaConfig,
        LoKrConfig,
        LoraConfig,
        MissConfig,
        OFTConfig,
        VeraConfig,
    )

    common: dict[str, Any] = {"target_modules": TARGETS, "task_type": "CAUSAL_LM"}
    low_rank = {**common, "r": 4, "lora_alpha": 6}
    if kind == "adalora":
        return AdaLoraConfig(**common, init_r=6, target_r=3, lora_alpha=8, total_step=10, tinit=1, tfinal=2)
    if kind == "loha":
        return LoHaConfig(**common, r=2, alpha=4)
    if kind == "lokr":
        return LoKrConfig(**common, r=4, alpha=4)
    if kind == "vera":
        return VeraConfig(**(common | {"target_modules": ["q_proj", "o_proj"]}), r=16)
    if kind == "oft":
        return OFTConfig(**common, oft_block_size=8)
    if kind == "miss":
        return MissConfig(**common, r=4)
    if kind == "ia3":
        return IA3Config(task_type="CAUSAL_LM", target_modules=TARGETS, feedforward_modules=["down_proj"])
    options: dict[str, dict[str, Any]] = {
        "lora": {},
        "rslora": {"use_rslora": True},
        "patterns": {
            "rank_pattern": {"q_proj": 8, "layers.1.mlp.down_proj": 2},
            "alpha_pattern": {"v_proj": 10, "layers.1.mlp.down_proj": 3},
        },
        "pissa": {"init_lora_weights": "pissa"},
        "olora": {"init_lora_weights": "olora"},
        "dora": {"use_dora": True},
    }
    return LoraConfig(**low_rank, **options[kind])


def _disturb(model: Any, is_chosen: Callable[[str], bool], scale: float) -> None:
    import torch

    with torch.no_grad():
        for name, value in model.named_parameters():
            if is_chosen(name) and "ranknum" not in name:
                spread = scale * 0.1 if "magnitude" in name else scale
                value.add_(torch.randn_like(value) * spread)


def _prune(model: Any) -> None:
    """Take AdaLoRA through its schedule, so that its ranks differ."""
    import torch

    ids = torch.tensor([PROMPTS[5]])
    for step in range(1, 10):
        model(input_ids=ids, labels=ids).loss.backward()
        model.base_model.update_and_allocate(step)
        model.zero_grad()


def logits_of(model: Any, prompts: list[list[int]] = PROMPTS[:6]) -> list[Any]:
    import torch

    with torch.inference_mode():
        return [model(input_ids=torch.tensor([prompt])).logits for prompt in prompts]
