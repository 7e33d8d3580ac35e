"""How long prompts and answers are, in tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.load.errors import LoadOptionError
from benchmarks.load.numbers_text import split_option

_KINDS: dict[str, tuple[str, ...]] = {
    "fixed": ("tokens",),
    "uniform": ("least", "most"),
    "normal": ("mean", "deviation"),
    "lognormal": ("median", "sigma"),
}


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths."""

    text: str
    kind: str
    values: tuple[float, ...]

    def draw(self, count: int, seed: int, *, least: int, most: int) -> list[int]:
        """`count` lengths between `least` and `most`."""
        generator = np.random.default_rng(seed)
        match self.kind:
            case "fixed":
                found = np.full(count, self.values[0])
            case "uniform":
                found = generator.integers(
                    int(self.values[0]), int(self.values[1]), size=count, endpoint=True
                )
            case "normal":
                found = generator.normal(self.values[0], self.values[1], size=count)
            case _:
                found = self.values[0] * np.exp(generator.normal(0.0, self.values[1], size=count))
        return [int(value) for value in np.clip(np.rint(found), least, most)]


def parse_lengths(text: str, *, option: str) -> Lengths:
    """`128`, `uniform:16,256`, `normal:128,32`, `lognormal:64,0.8`. Raises LoadOptionError."""
    if ":" not in text:
        text = f"fixed:{text}"
    kind, values = split_option(text, option=option, known=_KINDS)
    if values[0] < 1 or (kind == "uniform" and values[1] < values[0]):
        raise LoadOptionError(
            f"{option} {text}: lengths begin at 1 token, and the least is not above the most"
        )
    return Lengths(text, kind, tuple(values))
