"""Prompts of equal length in tokens, all different, the same for every server and every run."""

from __future__ import annotations

import random

from benchmarks.load.words import WORDS


def make_prompts(count: int, *, words: int, seed: int | str) -> list[str]:
    """`count` prompts of `words` words. Different first words keep one from being the prefix of another."""
    if count < 0 or words < 2:
        raise ValueError(f"{count} prompts of {words} words cannot be made; ask for 2 words at least")
    draw = random.Random(seed)  # noqa: S311 - repeatable, nothing to guess
    return ["The " + " ".join(draw.choices(WORDS, k=words - 1)) for _ in range(count)]
