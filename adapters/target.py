"""The base model that an adapter is checked against, reduced to what the check looks at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from adapters.targets import unserved_modules
from bases.lineage import Lineage, read_lineage

if TYPE_CHECKING:
    from bases.passport import Passport
    from bases.resolve import ResolvedBase


@dataclass(frozen=True, slots=True)
class RoundedBase:
    """What the served base was quantised from.

    `originals` maps the fingerprints of the bases it stands in for to their names. `rounding` is how far quantising
    moved the base's own log-odds, root mean square, as bases/lineage.py records it; None where it was not measured.
    """

    originals: Mapping[str, str] = field(default_factory=dict)
    scheme: str = ""
    rounding: float | None = None


NOT_ROUNDED = RoundedBase()


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
    rounded: RoundedBase = NOT_ROUNDED


def describe_target(base: ResolvedBase, passport: Passport) -> TargetBase:
    """What the check needs to know of a base. Raises BaseInvalidError for a lineage that cannot be read."""
    facts = passport.facts
    return TargetBase(
        fingerprint=passport.fingerprint,
        name=base.name,
        linear_modules=facts.linear_modules,
        reference=base.reference if base.source == "hub" else str(base.path),
        tied_embeddings=facts.tied_embeddings,
        unserved_modules=unserved_modules(facts.model_type, facts.linear_modules),
        rounded=_rounded(read_lineage(base.path)),
    )


def _rounded(lineage: Lineage | None) -> RoundedBase:
    if lineage is None or not (originals := lineage.stands_in_for()):
        return NOT_ROUNDED
    steps = list(
        itertools.takewhile(lambda step: step.parent.fingerprint in originals, reversed(lineage.steps))
    )
    known = [step.base_rounding for step in steps if step.base_rounding is not None]
    return RoundedBase(
        originals=originals,
        scheme=", ".join(step.scheme for step in steps if step.scheme),
        # Steps round independently of each other.
        rounding=math.hypot(*known) if len(known) == len(steps) else None,
    )
