"""A base that is in its place while its run goes on behind it, with the GPTQ layout or the recovery adapter.

When that is interrupted the base is whole, and the same command goes on behind it instead of refusing a folder
that exists. A note in `<home>/quantize/placed/` says which run made what lies there: it holds the run's key and a
hash of the base's lineage, so that a folder that is another one by now is not taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from bases.lineage import LINEAGE_NAME, read_lineage
from quantize.quality.figures import QualityFigures
from quantize.resume import place_key


@dataclass(frozen=True, slots=True)
class PlacedBase:
    """A note about the base in one output folder."""

    home: Path
    out: Path

    def note(self, folder: Path, key: str) -> None:
        """Write down that the run `key` makes the base of `folder`, which is about to be put in place.

        Raises OSError.
        """
        values = {"key": key, "lineage": _hash(folder)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(values) + "\n", encoding="utf-8")
        partial.replace(self._path)

    def key(self) -> str | None:
        """The key of the run that made what lies there and has not ended; None where no note says so."""
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            return str(values["key"]) if values["lineage"] == _hash(self.out) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def quality(self) -> QualityFigures | None:
        """The figures that were measured when it was made; None where its lineage holds none."""
        lineage = read_lineage(self.out)
        figures = (lineage.steps[-1].details if lineage is not None else {}).get("quality")
        try:
            return QualityFigures.model_validate(figures)
        except ValidationError:
            return None

    def forget(self) -> None:
        """Remove the note: the run has ended, or something else goes there."""
        self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.home / "quantize" / "placed" / f"{place_key(self.out)}.json"


def _hash(folder: Path) -> str:
    return hashlib.sha256((folder / LINEAGE_NAME).read_bytes()).hexdigest()
