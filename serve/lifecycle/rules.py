"""What one gateway lets in, and how long it keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters.target import TargetBase

KEEP_VERSIONS = 5


@dataclass(frozen=True, slots=True)
class AdapterRules:
    """What may be loaded, and how."""

    root: Path
    target: TargetBase
    max_lora_rank: int
    max_bytes: int
    probe: bool
    drain_seconds: float
    max_resident: int  # beyond so many, versions are read when they are first used
    keep_versions: int = KEEP_VERSIONS  # of a name, the newest ones, to go back to
