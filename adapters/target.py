"""The base model that an adapter is checked against, reduced to what the check looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.targets import unserved_modules

if TYPE_CHECKING:
    from bases.passport import Passport
    from bases.resolve import ResolvedBase


@dataclass(frozen=True, slots=True)
class TargetBase:
    """The served base.

    `linear_modules` maps each module that can be adapted, by its full name as PEFT sees it
    ("model.layers.0.self_attn.q_proj"), to (in_features, out_features). `reference` is what the base was
    resolved from (a hub id or a folder), to compare with the name an adapter gives for its base.
    `unserved_modules` are those of the linear modules whose adapter the engine would drop without a word
    (adapters/targets.py).
    """

    fingerprint: str
    name: str
    linear_modules: Mapping[str, tuple[int, int]]
    reference: str = ""
    tied_embeddings: bool = False
    unserved_modules: frozenset[str] = frozenset()


def describe_target(base: ResolvedBase, passport: Passport) -> TargetBase:
    """What the check needs to know of a base."""
    facts = passport.facts
    return TargetBase(
        fingerprint=passport.fingerprint,
        name=base.name,
        linear_modules=facts.linear_modules,
        reference=base.reference if base.source == "hub" else str(base.path),
        tied_embeddings=facts.tied_embeddings,
        unserved_modules=unserved_modules(facts.model_type, facts.linear_modules),
    )
