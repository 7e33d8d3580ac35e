"""Adapters for the served base, made of random numbers: as large as trained ones, and no two alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapters.tiny import make_tiny_adapter

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "v_proj")


class VersionMaker:
    """Writes adapters below an adapter root; `modules` are the base's linear modules."""

    def __init__(
        self, root: Path, modules: Mapping[str, tuple[int, int]], *, rank: int, targets: tuple[str, ...]
    ) -> None:
        self.root = root
        self._modules = modules
        self._rank = rank
        self._targets = targets

    def make(self, source: str, *, seed: int, rank: int | None = None) -> str:
        """Write one and return the source to load it by. The same seed gives the same adapter.

        `rank` is another than the maker's.
        """
        rank = self._rank if rank is None else rank
        make_tiny_adapter(
            self.root / source,
            linear_modules=self._modules,
            rank=rank,
            alpha=2 * rank,
            targets=self._targets,
            seed=seed,
        )
        return source
