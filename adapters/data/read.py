"""From a file or folder to checked examples."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adapters.data.conversation import RowError
from adapters.data.example import Example
from adapters.data.problems import BadLines, num
from adapters.data.readers.formats import read_rows
from adapters.data.readers.lines import too_long
from adapters.data.readers.row import ReadLimits, Row
from adapters.data.shapes import ChatMode, Shaper
from adapters.data.source import DEFAULT_TASK, DataSource
from adapters.data.split_name import SPLITS, Split
from adapters.errors import DataError

_SAY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How rows become examples; see DataSettings for each."""

    columns: Mapping[str, str] = field(default_factory=dict)
    chat: ChatMode = "auto"
    system: str | None = None
    label_pattern: str | None = None
    max_line_bytes: int = 1024**2
    skip_bad_lines: bool = False
    csv_delimiter: str | None = None


@dataclass(frozen=True, slots=True)
class ReadSource:
    """What one source gave."""

    parts: Mapping[Split | None, tuple[Example, ...]]
    """By split; the key is None where nothing says that the source is split."""
    num_rows: int
    warnings: tuple[str, ...]
    """What is odd about it, without the name of the file."""


def read_examples(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    task: str = DEFAULT_TASK,
    chat: ChatMode = "auto",
    system: str | None = None,
    label_pattern: str | None = None,
) -> list[Example]:
    """Every example of a file or folder, in order, as it stands there: nothing is cleaned or left out.

    Raises DataError, with file, line and remedy, for everything that is no example.
    """
    options = ReadOptions(columns=columns or {}, chat=chat, system=system, label_pattern=label_pattern)
    read = read_source(DataSource(path, task), options, progress=_silent)
    return [example for split in (None, *SPLITS) for example in read.parts.get(split, ())]


def read_source(source: DataSource, options: ReadOptions, *, progress: Callable[[str], None]) -> ReadSource:
    """Read all of one source. `progress` is told the number of rows every two seconds.

    Raises DataError with up to five bad lines at once, for a source without examples, and for a column of the map
    that is not there.
    """
    bad = BadLines()
    limits = ReadLimits(max_line_bytes=options.max_line_bytes, csv_delimiter=options.csv_delimiter)
    shaper = Shaper(
        columns=options.columns,
        chat=options.chat,
        system=options.system,
        label_pattern=re.compile(options.label_pattern) if options.label_pattern else None,
        task=source.task,
    )
    name = source.path.name
    parts: dict[Split | None, tuple[Example, ...]] = {}
    for split, rows in read_rows(source.path, bad, limits).items():
        parts[split] = tuple(_shape_all(rows, shaper, bad, limits, progress=progress))
    shaper.check_columns()
    if not options.skip_bad_lines:
        bad.refuse()
    num_examples = sum(map(len, parts.values()))
    if num_examples == 0:
        if bad.count:
            raise DataError(f"{bad.render()}\n{name} holds no other lines, so there is no example left.")
        raise DataError(f"{name}: the data holds no example; it must hold at least one.")
    return ReadSource(parts, num_examples + bad.count, tuple(_warnings(bad, shaper, num_examples)))


def _shape_all(
    rows: Iterable[Row],
    shaper: Shaper,
    bad: BadLines,
    limits: ReadLimits,
    *,
    progress: Callable[[str], None],
) -> Iterable[Example]:
    said_at = time.monotonic()
    for number, row in enumerate(rows, start=1):
        try:
            example = shaper.shape(row)
        except RowError as error:
            bad.add(row.origin, str(error))
            continue
        num_characters = sum(map(len, example.parts()))
        if num_characters > limits.max_line_bytes:
            bad.add(row.origin, too_long(num_characters, limits, what="example"))
            continue
        yield example
        if time.monotonic() - said_at > _SAY_SECONDS:
            said_at = time.monotonic()
            progress(f"Reading {row.origin.file}: {number:,} rows")


def _warnings(bad: BadLines, shaper: Shaper, num_examples: int) -> Iterable[str]:
    if bad.count:
        yield f"left out {num(bad.count, 'bad line')}:\n{bad.render()}"
    if unused := shaper.unused_columns():
        shown = ", ".join(map(repr, unused[:8])) + (f" and {len(unused) - 8} more" if len(unused) > 8 else "")
        yield f"nothing was taken from {shown}; --columns says what a column is"
    if shaper.num_without_system:
        yield (
            f"{num(shaper.num_without_system, 'example')} of raw text without a place for the system text; "
            "--chat on makes conversations of them"
        )
    if shaper.num_without_label:
        every = "every" if shaper.num_without_label == num_examples else f"{shaper.num_without_label:,} of"
        yield f"--label-pattern was not found in {every} {num_examples:,} answers"


def _silent(text: str) -> None:
    """Nobody is waiting to be told."""
