"""CSV and TSV with a header line: quoted fields, fields over several lines, comma, semicolon, tab or bar."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from adapters.data.example import Origin
from adapters.data.problems import BadLines
from adapters.data.readers.lines import NotUtf8Error, bounded_lines, decode_utf8, too_long
from adapters.data.readers.row import ReadLimits, Row
from adapters.errors import DataError

_DELIMITERS = ",;\t|"


def read_csv(path: Path, bad: BadLines, limits: ReadLimits) -> Iterator[Row]:
    """Origin is the line that a record starts at.

    Raises DataError for a header with empty or repeated names, an open quote, a line too long or not UTF-8:
    where a record ends is then unknown, so that nothing after it can be read.
    """
    lines = _text_lines(path, limits)
    first = next(lines, None)
    if first is None:
        return
    delimiter = limits.csv_delimiter or ("\t" if path.suffix.lower() == ".tsv" else _find_delimiter(first))
    # The library's own bound on a field is one number for the whole process: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), limits.max_line_bytes))
    reader = csv.reader(_chain(first, lines), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path.name}:{start}: the record that starts here cannot be read ({error}); look for a quote "
                'that is not closed, and write a quote inside a field twice ("").'
            ) from None
        if not fields or fields == [""]:
            continue
        if header is None:
            header = _check_header(path, [name.strip() for name in fields], delimiter)
        elif len(fields) != len(header):
            bad.add(
                Origin(path.name, start),
                f"the record has {len(fields)} fields and the header {len(header)}; put a field with a "
                f"{_spoken(delimiter)} in it into double quotes",
            )
        elif (num_bytes := sum(len(part.encode()) for part in fields)) > limits.max_line_bytes:
            bad.add(Origin(path.name, start), too_long(num_bytes, limits, what="record"))
        else:
            yield Row(Origin(path.name, start), dict(zip(header, fields, strict=True)))


def _text_lines(path: Path, limits: ReadLimits) -> Iterator[str]:
    for line in bounded_lines(path, limits):
        if line.raw is None:
            raise DataError(f"{path.name}:{line.number}: {too_long(line.num_bytes, limits)}.")
        try:
            yield decode_utf8(line.raw)
        except NotUtf8Error as error:
            raise DataError(f"{path.name}:{line.number}: the line is {error}.") from None


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _find_delimiter(header: str) -> str:
    """The sign that stands most often in the header outside quotes; a comma where there is none."""
    outside = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def _check_header(path: Path, header: list[str], delimiter: str) -> list[str]:
    if "" in header:
        raise DataError(
            f"{path.name}:1: column {header.index('') + 1} of the header has no name; the first line must name "
            f"every column (separated by a {_spoken(delimiter)} here; --csv-delimiter sets another sign)."
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"{path.name}:1: the header names {', '.join(map(repr, twice))} twice; rename one of them."
        )
    return header


def _spoken(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}.get(delimiter, repr(delimiter))
