"""Adapters for the served base, made of random numbers: as large as trained ones, and no two alike."""

from __future__ import annotations

from pathlib import Path

from adapters.tiny import make_tiny_adapter
from bases.architecture import read_architecture

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "v_proj")


class VersionMaker:
    """Writes adapters below an adapter root; `base` is the base's folder."""

    def __init__(self, root: Path, base: Path, *, rank: int, targets: tuple[str, ...]) -> None:
        self.root = root
        self._modules = read_architecture(base).linear_modules
        self._rank = rank
        self._targets = targets

    def make(self, source: str, *, seed: int) -> str:
        """Write one and return the source to load it by. The same seed gives the same adapter."""
        make_tiny_adapter(
            self.root / source,
            linear_modules=self._modules,
            rank=self._rank,
            alpha=2 * self._rank,
            targets=self._targets,
            seed=seed,
        )
        return source
