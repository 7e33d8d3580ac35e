"""JSON Lines: one object a line. Read as a stream, so that the file may be larger than the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.data.example import Origin
from adapters.data.problems import BadLines
from adapters.data.readers.lines import NotUtf8Error, bounded_lines, decode_utf8, too_long
from adapters.data.readers.row import ReadLimits, Row
from adapters.errors import AdapterFileError
from adapters.strict_json import parse_json_object


def read_jsonl(path: Path, bad: BadLines, limits: ReadLimits) -> Iterator[Row]:
    """Blank lines are passed over. Bad: no JSON, no object, NaN, a key twice, not UTF-8, too long."""
    for line in bounded_lines(path, limits):
        origin = Origin(path.name, line.number)
        if line.raw is None:
            bad.add(origin, too_long(line.num_bytes, limits))
            continue
        content = line.raw.rstrip()
        if not content:
            continue
        try:
            yield Row(origin, parse_object(content))
        except ValueError as error:
            bad.add(origin, str(error))


def parse_object(raw: bytes) -> dict[str, Any]:
    """One line as an object. Raises ValueError with the fault and what to do."""
    try:
        decode_utf8(raw)
        return parse_json_object(raw, what="the line")
    except NotUtf8Error as error:
        raise ValueError(f"the line is {error}") from None
    except AdapterFileError as error:
        fault = str(error).rstrip(".").replace(" at line 1, column ", " at column ")
        raise ValueError(
            f'{fault}; a line is one object such as {{"prompt": "...", "completion": "..."}}'
        ) from None
