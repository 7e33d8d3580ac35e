"""Reads what a PEFT model learned: the change of each linear module of the served base.

LoRA and AdaLoRA are low-rank already and are read as their factors. Initialisations that change the base's own
weights (PiSSA, OLoRA, LoftQ, CorDA, LoRA-GA) are read as the difference of the trained and the initial adapter.
Everything else (DoRA, LoHa, LoKr, VeRA, IA3, OFT, ...) is read as the matrix that PEFT would merge.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from adapters.errors import ExportError, NotServableError
from adapters.export.factors import Factors
from adapters.export.layer_change import read_layer
from adapters.export.module_names import plain_name, served_name
from adapters.export.plain_lora import read_initial_adapter
from adapters.export.trained import DeclaredScaling, ServedBase, Trained, on_cpu

# These only choose the values that training starts from. Every other name leaves the base changed.
PURE_INITIALISATIONS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
# What an adapter of these kinds does depends on the request or adds no weights at all.
_NOT_SERVABLE = {
    "PREFIX_TUNING": "prefix tuning adds keys and values to every layer's cache",
    "PROMPT_TUNING": "prompt tuning puts trained vectors in front of the prompt",
    "MULTITASK_PROMPT_TUNING": "prompt tuning puts trained vectors in front of the prompt",
    "P_TUNING": "p-tuning puts trained vectors in front of the prompt",
    "CPT": "context-aware prompt tuning puts trained vectors in front of the prompt",
    "CARTRIDGE": "a cartridge adds keys and values to every layer's cache",
    "ADAPTION_PROMPT": "an adaption prompt adds attention of its own to the layers",
    "XLORA": "X-LoRA weighs its adapters anew for every token",
    "POLY": "Poly mixes its adapters by task",
}
_NOT_SERVABLE_OPTIONS = {
    "alora_invocation_tokens": "activated LoRA acts only after certain tokens",
    "arrow_config": "Arrow chooses among its adapters for every token",
    "layer_replication": "layer replication makes the model deeper",
    "trainable_token_indices": "trained token embeddings change the embedding, which every request shares",
}


def collect_adapter(
    model: Any,
    *,
    linear_modules: Collection[str],
    base: ServedBase,
    initial_adapter_folder: Path | None = None,
) -> Trained:
    """The changes that the one active adapter of the PEFT model `model` makes to the served base.

    Raises NotServableError for methods without a LoRA form, ExportError for changes outside the linear modules.
    """
    name = _active_adapter(model)
    config = model.peft_config[name]
    refuse_unservable(config)
    notes = [*_check_whole_modules(model, name), *_check_biases(model, config, base)]
    layers = list(_tuned_layers(model, name))
    if not layers:
        raise NotServableError(
            f"{_kind(config)} adapts no layer with a weight matrix, so it has no LoRA form."
        )
    mutates = mutates_base(config)
    initial = read_initial_adapter(initial_adapter_folder) if initial_adapter_folder and mutates else None
    changes = []
    for full_name, layer in layers:
        module = _servable(full_name, linear_modules)
        changes.append(read_layer(module, layer, name, base, mutates=mutates, initial=initial))
    if mutates:
        source = "the initial adapter" if initial is not None else "the base's own weights"
        notes.append(
            f"{config.init_lora_weights} changed the base's weights; converted to the original base by subtracting "
            f"what {source} held at the start"
        )
    declared = None if mutates else _declared(config, [change.factors for change in changes])
    return Trained(tuple(changes), declared, tuple(notes))


def _active_adapter(model: Any) -> str:
    active = list(getattr(model, "active_adapters", None) or [model.active_adapter])
    if len(active) != 1:
        raise ExportError(
            f"{len(active)} adapters are active ({', '.join(active)}); one is exported at a time. "
            "Call model.set_adapter(name) first."
        )
    return str(active[0])


def _kind(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def refuse_unservable(config: Any) -> None:
    """Raise NotServableError, with the reason, for a PEFT configuration that has no LoRA form."""
    kind = _kind(config)
    reason = _NOT_SERVABLE.get(kind)
    if reason is None and getattr(config, "is_prompt_learning", False):
        reason = f"{kind} works on the prompt"
    for option, why in _NOT_SERVABLE_OPTIONS.items():
        if reason is None and getattr(config, option, None):
            reason = why
    if reason is not None:
        raise NotServableError(
            f"{kind} cannot be served: {reason}, and the engine applies low-rank changes of linear layers alone. "
            "It trains and evaluates; to serve, train with LoRA, rsLoRA, PiSSA or AdaLoRA."
        )


def mutates_base(config: Any) -> bool:
    """Whether the initialisation that `config` names takes something out of the base's own weights."""
    init = getattr(config, "init_lora_weights", True)
    changes_base = isinstance(init, str) and init.lower() not in PURE_INITIALISATIONS
    return changes_base or bool(getattr(config, "kasa_config", None))


def _tuned_layers(model: Any, adapter: str) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for full_name, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and adapter in _adapters_of(layer):
            yield full_name, layer


def _adapters_of(layer: Any) -> set[str]:
    """The adapters a layer holds weights of; a layer may be wrapped for one adapter and not for another."""
    return {key for attribute in layer.adapter_layer_names for key in getattr(layer, attribute, {})}


def _servable(full_name: str, linear_modules: Collection[str]) -> str:
    module = served_name(full_name, linear_modules)
    if module is None:
        shown = plain_name(full_name)
        raise ExportError(
            f"{shown} was adapted, but is not a linear module of the served base that can be adapted per request "
            "(embeddings, output layers, norms and stacked experts are not). Train on the linear layers alone: "
            f"{', '.join(sorted({name.rpartition('.')[2] for name in linear_modules}))}."
        )
    return module


def _declared(config: Any, factors: list[Factors | None]) -> DeclaredScaling | None:
    """The configuration's scaling where it holds for every module as it stands."""
    plain = [item for item in factors if item is not None]
    if _kind(config) != "LORA" or len(plain) != len(factors):
        return None
    declared = DeclaredScaling(config.r, float(config.lora_alpha), bool(config.use_rslora))
    scale = declared.alpha / (declared.rank**0.5 if declared.rslora else declared.rank)
    if all(item.rank == declared.rank and item.scale == scale for item in plain):
        return declared
    return None


def _check_whole_modules(model: Any, adapter: str) -> Iterator[str]:
    """Layers that were trained whole: dropped where they are still the base's, refused where not."""
    import torch
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    for full_name, wrapper in model.named_modules():
        if not isinstance(wrapper, AuxiliaryTrainingWrapper):
            continue
        shown = plain_name(full_name)
        if not isinstance(wrapper, ModulesToSaveWrapper):
            raise ExportError(
                f"{shown} has trained token embeddings; the engine shares it among all requests. Train without."
            )
        if adapter not in wrapper.modules_to_save:
            continue
        original = dict(wrapper.original_module.named_parameters())
        for name, value in wrapper.modules_to_save[adapter].named_parameters():
            if not torch.equal(value, original[name]):
                before = on_cpu(original[name])
                change = float((on_cpu(value) - before).norm() / before.norm().clamp_min(1e-12))
                raise ExportError(
                    f"{shown} was trained whole (modules_to_save) and its {name} changed by {change:.2%}; the "
                    "engine cannot exchange it per request. Train without modules_to_save."
                )
        yield f"{shown} (modules_to_save) equals the base's and was left out"


def _check_biases(model: Any, config: Any, base: ServedBase) -> Iterator[str]:
    import torch

    if getattr(config, "bias", "none") == "none":
        return
    for full_name, value in model.named_parameters():
        if not full_name.endswith(".bias") or ".lora_" in full_name:
            continue
        owner = plain_name(full_name.removesuffix(".bias"))
        original = base.parameter(f"{owner}.bias")
        if original is not None and not torch.equal(on_cpu(value), original):
            raise ExportError(
                f"bias={config.bias!r}: the bias of {owner} was trained, and the engine adapts weights alone. "
                "Train with bias='none'."
            )
    yield f"bias={config.bias!r}, but no bias changed: left out"
