"""The rules for `adapter_config.json`: what the engine would refuse, and what it would silently get wrong.

The refusals follow PEFTHelper in vLLM 0.32 (vllm/lora/peft_helper.py); beyond it come the features of PEFT
0.21 that vLLM reads over (Arrow, KaSA, MonteCLoRA, target_parameters) and so would serve as something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from adapters.config import CONFIG_NAME, AdapterConfig
from adapters.report import Findings

# The sizes that vLLM 0.32 takes for max_lora_rank (vllm/config/lora.py).
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# These only choose the values that training starts from; all others change the base's weights as well.
HARMLESS_INITIALISATIONS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})

_UNSUPPORTED_FEATURES: Mapping[str, tuple[str, str]] = {
    "use_dora": ("dora", "DoRA"),
    "lora_bias": ("bias", "a bias on LoRA B"),
    "trainable_token_indices": ("trainable_tokens", "trained token embeddings"),
    "alora_invocation_tokens": ("feature_unsupported", "activated LoRA"),
    "layer_replication": ("feature_unsupported", "layer replication"),
    "use_bdlora": ("feature_unsupported", "block-diagonal LoRA"),
    "use_qalora": ("feature_unsupported", "QALoRA"),
    "arrow_config": ("feature_unsupported", "Arrow routing"),
    "kasa_config": ("feature_unsupported", "KaSA"),
    "monteclora_config": ("feature_unsupported", "MonteCLoRA"),
    "target_parameters": ("feature_unsupported", "LoRA on bare parameters (target_parameters)"),
}
# The engine compiles a pattern's key as a regular expression. Only plain module names are let through: they
# mean the same as text, and cannot take exponential time.
_PLAIN_PATTERN_KEY = re.compile(r"\^?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def check_config(config: AdapterConfig, *, max_lora_rank: int | None, findings: Findings) -> bool:
    """Add what is wrong with the configuration; return whether the rank of every module can be computed."""
    values = config.values
    _check_kind(values, findings)
    _check_features(values, findings)
    usable = _check_rank_and_alpha(values, findings)
    usable = _check_pattern(values, "rank_pattern", findings) and usable
    usable = _check_pattern(values, "alpha_pattern", findings) and usable
    if usable:
        _check_rank_fits(config, max_lora_rank, findings)
    return usable


def _check_kind(values: Mapping[str, Any], findings: Findings) -> None:
    if values["peft_type"] != "LORA":
        findings.add(
            "peft_type_unsupported",
            f"peft_type is {_shown(values['peft_type'])}; only LORA adapters can be served.",
            "peft_type",
        )
    if values.get("task_type") not in (None, "CAUSAL_LM"):
        findings.add(
            "task_type_unsupported",
            f"task_type is {_shown(values['task_type'])}; only CAUSAL_LM adapters can be served.",
            "task_type",
        )
    if values.get("auto_map"):
        findings.add(
            "auto_map",
            f"{CONFIG_NAME} names code to run (auto_map). No adapter needs it: remove the key.",
            "auto_map",
        )
    targets = values["target_modules"]
    is_names = isinstance(targets, list) and all(isinstance(target, str) for target in targets)
    if not (is_names or isinstance(targets, str) or targets is None):
        findings.add(
            "config_invalid",
            f"target_modules is {_shown(targets)}; expected names or a pattern.",
            "target_modules",
        )


def _check_features(values: Mapping[str, Any], findings: Findings) -> None:
    if values.get("modules_to_save"):
        findings.add(
            "modules_to_save",
            f"modules_to_save is {_shown(values['modules_to_save'])}: whole layers were trained "
            "beside LoRA, and the "
            "engine cannot exchange them per request. Train without it, or merge the adapter into the base.",
            "modules_to_save",
        )
    if values.get("bias", "none") != "none":
        findings.add(
            "bias",
            f"bias is {_shown(values['bias'])}: the biases of the base were trained. Train with bias='none'.",
            "bias",
        )
    for key, (code, title) in _UNSUPPORTED_FEATURES.items():
        if values.get(key):
            findings.add(
                code,
                f"The adapter uses {title} ({key}), which the engine cannot serve. Train without it.",
                key,
            )
    init = values.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in HARMLESS_INITIALISATIONS:
        findings.add(
            "init_unsupported",
            f"init_lora_weights is {_shown(init)}: it changed the base's own weights, so the "
            "adapter is wrong on the "
            "base as served. Convert it with save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...).",
            "init_lora_weights",
        )


def _check_rank_and_alpha(values: Mapping[str, Any], findings: Findings) -> bool:
    rank, alpha = values["r"], values["lora_alpha"]
    rank_ok, alpha_ok = _is_rank(rank), _is_number(alpha)
    if not rank_ok:
        findings.add("rank_invalid", f"r is {_shown(rank)}; expected a whole number of at least 1.", "r")
    if not alpha_ok:
        findings.add("alpha_invalid", f"lora_alpha is {_shown(alpha)}; expected a number.", "lora_alpha")
    if not isinstance(values.get("use_rslora", False), bool | None):
        findings.add(
            "config_invalid", f"use_rslora is {_shown(values['use_rslora'])}; expected a bool.", "use_rslora"
        )
        return False
    return rank_ok and alpha_ok


def _check_pattern(values: Mapping[str, Any], key: str, findings: Findings) -> bool:
    pattern = values.get(key)
    if not pattern:
        return True
    if not isinstance(pattern, dict):
        findings.add("config_invalid", f"{key} is {_shown(pattern)}; expected names with numbers.", key)
        return False
    is_valid, code, expected = (
        (_is_rank, "rank_invalid", "a whole number of at least 1")
        if key == "rank_pattern"
        else (_is_number, "alpha_invalid", "a number")
    )
    usable = True
    for name, value in pattern.items():
        if _PLAIN_PATTERN_KEY.fullmatch(name) is None or len(name) > 512:
            usable = False
            findings.add(
                "pattern_unsupported",
                f"{key} has the key {_shown(name)}, a regular expression. Write the modules' names out.",
                key,
            )
        if not is_valid(value):
            usable = False
            findings.add(code, f"{key}[{_shown(name)}] is {_shown(value)}; expected {expected}.", key)
    return usable


def _check_rank_fits(config: AdapterConfig, max_lora_rank: int | None, findings: Findings) -> None:
    # The engine compares with `r` even where every module has its own rank in rank_pattern.
    rank = max([config.rank, *(config.values.get("rank_pattern") or {}).values()])
    limit = ENGINE_RANKS[-1] if max_lora_rank is None else max_lora_rank
    if rank <= limit:
        return
    fitting = next((size for size in ENGINE_RANKS if size >= rank), None)
    way_out = (
        f"Start the server with max_lora_rank {fitting}, or train with a rank of at most {limit}."
        if fitting is not None
        else f"The engine goes up to {ENGINE_RANKS[-1]}: train with a smaller rank."
    )
    findings.add("rank_too_high", f"The rank is {rank}, the server takes at most {limit}. {way_out}", "r")


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _shown(value: Any) -> str:
    """`value` as Python writes it, escaped and cut for a message."""
    text = ascii(value)
    return text if len(text) <= 120 else text[:117] + "..."
