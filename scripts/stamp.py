"""What an environment was made from, kept inside it: so that the second set-up has nothing to do.

The stamp is written before the first package is touched (incomplete) and again after the last (complete).
A set-up that was killed leaves an incomplete one, and the next set-up goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

STAMP_NAME = "hotswap-setup.json"


@dataclass(frozen=True)
class Stamp:
    """One environment's history. A digest is "" as long as that step has not been finished."""

    device: str
    """"cpu" or "gpu": whose lock the environment holds, wholly or in part."""
    folder: str
    """Where the environment was made; its scripts name this path, so a moved one is of no use."""
    lock_digest: str
    """sha256 of the lock whose packages are all installed."""
    project_digest: str
    """`project_digest` of the checkout when the project was installed."""
    packages: tuple[str, ...]
    """Normalised names of every package that a lock may have put there."""


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_stamp(environment: Path) -> Stamp | None:
    """The stamp of an environment; None where there is none or it cannot be read."""
    try:
        fields = json.loads((environment / STAMP_NAME).read_text())
        return Stamp(**{**fields, "packages": tuple(fields["packages"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_stamp(environment: Path, stamp: Stamp) -> None:
    """Write the stamp in one step: a reader sees the old one or the new one, never half of one."""
    partial = environment / f"{STAMP_NAME}.partial"
    partial.write_text(json.dumps(asdict(stamp), indent=1) + "\n")
    partial.replace(environment / STAMP_NAME)
