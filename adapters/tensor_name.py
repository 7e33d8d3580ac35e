"""The names PEFT gives to the two tensors of each adapted module."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, cast

PREFIX = "base_model.model."
_SUFFIXES = {".lora_A.weight": "A", ".lora_B.weight": "B"}


@dataclass(frozen=True, slots=True)
class LoraTensorName:
    """A tensor's module ("model.layers.0.self_attn.q_proj") and its factor: A (rank, in) or B (out, rank)."""

    module: str
    factor: Literal["A", "B"]

    def __str__(self) -> str:
        return f"{PREFIX}{self.module}.lora_{self.factor}.weight"


@functools.lru_cache(maxsize=8192)  # the adapters of one base have the same few hundred
def parse_tensor_name(name: str) -> LoraTensorName | None:
    """Read `base_model.model.<module>.lora_A.weight`; None for every other name.

    vLLM's parse_fine_tuned_lora_name also takes names without the prefix, which PEFT itself ignores when it
    loads; an adapter that the trainer and the server read differently is refused, so those are None too.
    """
    for suffix, factor in _SUFFIXES.items():
        module = name.removeprefix(PREFIX).removesuffix(suffix)
        if name == f"{PREFIX}{module}{suffix}" and module and PREFIX not in f".{module}.":
            return LoraTensorName(module, cast(Literal["A", "B"], factor))
    return None
