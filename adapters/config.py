"""`adapter_config.json`: what PEFT wrote about a LoRA adapter, and the rank and scaling of each module."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from adapters.errors import AdapterFileError
from adapters.strict_json import parse_json_object

CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 1024 * 1024

# Keys that change what an adapter computes and are off in every adapter that can be served. They are part of
# a version's identity when they are on, so that two versions never differ unseen.
FEATURE_KEYS = (
    "alora_invocation_tokens",
    "arrow_config",
    "auto_map",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)


@dataclass(frozen=True)
class AdapterConfig:
    """The parsed file. Values are as found: only `check` decides what is acceptable.

    The properties below are for a file whose `r`, `lora_alpha` and patterns have been found valid.
    """

    values: Mapping[str, Any]

    @property
    def rank(self) -> int:
        return int(self.values["r"])

    @property
    def alpha(self) -> float:
        return float(self.values["lora_alpha"])

    @property
    def rslora(self) -> bool:
        return bool(self.values.get("use_rslora"))

    @property
    def base_name(self) -> str | None:
        """What the adapter says its base is called: a hub id or a path on the trainer's machine."""
        name = self.values.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    @cached_property
    def _rank_pattern(self) -> list[tuple[re.Pattern[str], int]]:
        return _compile(self.values.get("rank_pattern"))

    @cached_property
    def _alpha_pattern(self) -> list[tuple[re.Pattern[str], float]]:
        return _compile(self.values.get("alpha_pattern"))

    def rank_and_alpha(self, module: str) -> tuple[int, float]:
        """The rank and alpha of one module, by PEFT's rule: the first pattern that matches wins.

        Source: peft.utils.other.get_pattern_key; vLLM's PEFTHelper.get_rank_and_scaling follows it.
        """
        rank = next((value for key, value in self._rank_pattern if key.match(module)), self.rank)
        alpha = next((value for key, value in self._alpha_pattern if key.match(module)), self.alpha)
        return rank, float(alpha)

    def identity(self, modules: Iterable[str]) -> dict[str, Any]:
        """What of this configuration changes the outputs of an adapter on `modules`.

        Not in it: where the base lay on the trainer's machine, library versions, dropout, initialisation,
        how targets and patterns were spelled, and every key that is at its default.
        """
        features = {key: self.values[key] for key in FEATURE_KEYS if self.values.get(key)}
        if self.values.get("bias", "none") != "none":
            features["bias"] = self.values["bias"]
        return {
            "peft_type": self.values.get("peft_type"),
            "rslora": self.rslora,
            "modules": {module: self.rank_and_alpha(module) for module in modules},
            "features": features,
        }


def parse_config(raw: bytes) -> AdapterConfig:
    """Read the file's bytes; raise AdapterFileError when they are not one JSON object with the LoRA keys."""
    values = parse_json_object(raw, what=CONFIG_NAME)
    missing = [key for key in ("peft_type", "r", "lora_alpha", "target_modules") if key not in values]
    if missing:
        raise AdapterFileError(
            f"{CONFIG_NAME} lacks {', '.join(missing)}. Give the folder that PEFT's save_pretrained wrote."
        )
    return AdapterConfig(values)


def _compile(pattern: Any) -> list[tuple[re.Pattern[str], Any]]:
    return [(re.compile(rf"(.*\.)?({key})$"), value) for key, value in (pattern or {}).items()]
