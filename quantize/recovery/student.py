"""The quantised base with a LoRA on it, as a model that is trained, measured and exported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from adapters.export.factors import Factors
from adapters.export.weights import target_names


def put_on(
    model: Any,
    factors: Mapping[str, Factors],
    *,
    rank: int,
    linear_modules: Collection[str],
    seed: int = 0,
) -> Any:
    """`model` with a PEFT LoRA on the modules that `factors` names, at scale 1 and `rank`.

    Factors narrower than `rank` are filled up with directions that do nothing yet: random rows of A, zero columns
    of B. `model` itself is changed: its layers are wrapped.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=rank,
            lora_dropout=0.0,
            target_modules=target_names(factors, linear_modules),
            bias="none",
        ),
    )
    inner = adapted.get_base_model()
    with torch.no_grad():
        for module, given in factors.items():
            layer = inner.get_submodule(module)
            plain = given.folded()
            layer.lora_A["default"].weight[: plain.rank] = plain.a
            layer.lora_B["default"].weight[:, : plain.rank] = plain.b
    return adapted


def read_factors(adapted: Any, modules: Collection[str]) -> dict[str, Factors]:
    """The factors that `put_on` put there, as they are now, in float32 on the CPU."""
    inner = adapted.get_base_model()
    found = {}
    for module in modules:
        layer = inner.get_submodule(module)
        found[module] = Factors(
            layer.lora_A["default"].weight.detach().cpu().float().clone(),
            layer.lora_B["default"].weight.detach().cpu().float().clone(),
        )
    return found


def no_factors(modules: Mapping[str, tuple[int, int]]) -> dict[str, Factors]:
    """Factors of rank 0 for modules of (in_features, out_features)."""
    import torch

    return {
        name: Factors(torch.zeros(0, in_features), torch.zeros(out_features, 0))
        for name, (in_features, out_features) in modules.items()
    }
