"""What every reader gives, whatever the format: one record with the place it stands at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from adapters.data.example import Origin
from adapters.data.problems import BadLines


@dataclass(frozen=True, slots=True)
class Row:
    """One record: column or key to value."""

    origin: Origin
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds and hints of the readers."""

    max_line_bytes: int
    """Longest line, row or object, in bytes. Longer ones never reach a parser."""
    max_json_bytes: int = 512 * 1024**2
    """Largest .json file, in bytes: it has to be parsed in one piece."""
    csv_delimiter: str | None = None
    """Sign between the fields of a .csv file; None finds it in the header."""


class Reader(Protocol):
    """Reads one file in order. Bad lines go into `bad`; a file that is bad as a whole raises DataError."""

    def __call__(self, path: Path, bad: BadLines, limits: ReadLimits, /) -> Iterator[Row]: ...
