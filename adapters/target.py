"""The base model that an adapter is checked against, reduced to what the check looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TargetBase:
    """The served base.

    `linear_modules` maps each module that can be adapted, by its full name as PEFT sees it
    ("model.layers.0.self_attn.q_proj"), to (in_features, out_features). `reference` is what the base was
    resolved from (a hub id or a folder), to compare with the name an adapter gives for its base.
    """

    fingerprint: str
    name: str
    linear_modules: Mapping[str, tuple[int, int]]
    reference: str = ""
    tied_embeddings: bool = False
