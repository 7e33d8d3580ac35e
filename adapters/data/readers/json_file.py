"""JSON: an array of objects, or an object with one such array in it."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.data.example import Origin
from adapters.data.problems import BadLines
from adapters.data.readers.jsonl import read_jsonl
from adapters.data.readers.lines import NotUtf8Error, decode_utf8, refuse_other_marks, too_long
from adapters.data.readers.row import ReadLimits, Row
from adapters.errors import AdapterFileError, DataError
from adapters.strict_json import parse_json_object

# The strict parser takes objects, so an array is read as the value of this one key.
_PREFIX, _SUFFIX = b'{"rows":', b"}"


def read_json(path: Path, bad: BadLines, limits: ReadLimits) -> Iterator[Row]:
    """Origin counts the objects of the array. A file of JSON lines under the name .json is read as such.

    Raises DataError for a file that is not JSON, holds no list of objects, or is larger than `max_json_bytes`.
    """
    num_bytes = path.stat().st_size
    if num_bytes > limits.max_json_bytes:
        raise DataError(
            f"{path.name}: the file has {num_bytes:,} bytes and would have to be parsed in one piece; write it as "
            ".jsonl, one object a line."
        )
    raw = path.read_bytes()
    refuse_other_marks(path, raw[:4])
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if _is_json_lines(raw):
        yield from read_jsonl(path, bad, limits)
        return
    for number, item in enumerate(_find_list(path, _parse(path, raw)), start=1):
        origin = Origin(path.name, number)
        if not isinstance(item, dict):
            bad.add(origin, f"item {number} of the list is {_kind(item)}, not an object with named fields")
            continue
        item_bytes = len(json.dumps(item, ensure_ascii=False).encode())
        if item_bytes > limits.max_line_bytes:
            bad.add(origin, too_long(item_bytes, limits, what="object"))
            continue
        yield Row(origin, item)


def _is_json_lines(raw: bytes) -> bool:
    """Whether a first line is an object of its own and another one follows."""
    first, _, rest = raw.lstrip().partition(b"\n")
    if not first.startswith(b"{") or not rest.lstrip().startswith(b"{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(path: Path, raw: bytes) -> Any:
    try:
        text = decode_utf8(raw)
    except NotUtf8Error as error:
        raise DataError(f"{path.name}: the file is {error}.") from None
    if not text.strip():
        return []
    try:
        parsed = parse_json_object(_PREFIX + raw + _SUFFIX, what="the file")
    except AdapterFileError as error:
        cause = error.__cause__
        if isinstance(cause, json.JSONDecodeError):
            column = cause.colno - len(_PREFIX) * (cause.lineno == 1)
            raise DataError(
                f"{path.name}:{cause.lineno}: not valid JSON: {cause.msg} at column {column}. Mend it there, or "
                "write one object a line into a .jsonl file, which is read line by line."
            ) from None
        raise DataError(f"{path.name}: {str(error).rstrip('.')}; mend the file.") from None
    if set(parsed) != {"rows"}:
        raise DataError(f"{path.name}: not valid JSON: text follows the end of the array.")
    return parsed["rows"]


def _find_list(path: Path, value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise DataError(f"{path.name}: the file holds {_kind(value)}; it must hold an array of objects.")
    lists = {key: item for key, item in value.items() if isinstance(item, list)}
    if len(lists) == 1 and not {"messages", "conversations"} & set(lists):
        return next(iter(lists.values()))
    raise DataError(
        f"{path.name}: the file holds one object with the keys {', '.join(map(repr, value)) or '(none)'}, and "
        "which of them is the list of examples cannot be told; write the examples as an array, [{...}, {...}]."
    )


def _kind(value: Any) -> str:
    names = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
