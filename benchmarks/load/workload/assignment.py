"""Which adapter each request asks for: the four workloads of Punica, and a share for the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.load.numbers_text import split_option

_KINDS: dict[str, tuple[str, ...]] = {"identical": (), "uniform": (), "distinct": (), "skewed": ("alpha",)}


@dataclass(frozen=True, slots=True)
class Assignment:
    """identical: all ask one adapter. uniform: any, equally. distinct: each in turn. skewed: Zipf with alpha."""

    text: str
    kind: str
    alpha: float = 1.0

    def draw(
        self, adapters: Sequence[str], count: int, seed: int, *, base_share: float = 0.0
    ) -> list[str | None]:
        """The adapter of each of `count` requests; None is the base. Without adapters all ask the base."""
        generator = np.random.default_rng(seed)
        if not adapters:
            return [None] * count
        match self.kind:
            case "identical":
                chosen = np.zeros(count, dtype=int)
            case "distinct":
                chosen = np.arange(count) % len(adapters)
            case "uniform":
                chosen = generator.integers(0, len(adapters), size=count)
            case _:
                weights = 1.0 / np.arange(1, len(adapters) + 1) ** self.alpha
                chosen = generator.choice(len(adapters), size=count, p=weights / weights.sum())
        base = generator.random(count) < base_share
        return [None if to_base else adapters[int(one)] for one, to_base in zip(chosen, base, strict=True)]


def parse_assignment(text: str) -> Assignment:
    """`identical`, `uniform`, `distinct`, `skewed` (Zipf, alpha 1) or `skewed:1.5`. Raises LoadOptionError."""
    if text == "skewed":
        text = "skewed:1"
    kind, values = split_option(text, option="--adapter-mix", known=_KINDS)
    return Assignment(text, kind, *values)
