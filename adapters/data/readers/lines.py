"""Lines of a text file, none longer than allowed, whatever is in the file."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapters.data.readers.row import ReadLimits
from adapters.errors import DataError

_CHUNK_BYTES = 1024**2
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class NotUtf8Error(ValueError):
    """Bytes that are not UTF-8. The text says where and what to do."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line with its ending, or only its length where it is longer than allowed."""

    number: int
    raw: bytes | None
    num_bytes: int


def bounded_lines(path: Path, limits: ReadLimits) -> Iterator[RawLine]:
    """Lines from 1 on, without a byte-order mark. At most `max_line_bytes` of the file are held at a time.

    Raises DataError for a file that starts as UTF-16 or UTF-32.
    """
    with path.open("rb") as stream:
        refuse_other_marks(path, stream.read(4))
        stream.seek(0)
        number = 0
        while raw := stream.readline(limits.max_line_bytes + 1):
            number += 1
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if len(raw) > limits.max_line_bytes and not raw.endswith(b"\n"):
                yield RawLine(number, None, len(raw) + _skip_line(stream))
            else:
                yield RawLine(number, raw, len(raw))


def decode_utf8(raw: bytes) -> str:
    """Raises NotUtf8Error that names the first bad byte and how to convert the file."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotUtf8Error(
            f"not UTF-8 text (byte {error.start + 1} is 0x{raw[error.start]:02x}); save the file as UTF-8, for "
            "example with `iconv -f WINDOWS-1252 -t UTF-8`, or `-f GB18030` for Chinese"
        ) from None


def refuse_other_marks(path: Path, head: bytes) -> None:
    """Raise DataError where the first bytes say that the file is UTF-16 or UTF-32."""
    for mark, name in _OTHER_MARKS.items():
        if head.startswith(mark):
            raise DataError(
                f"{path.name}:1: the file is {name}, not UTF-8; convert it with "
                f"`iconv -f {name} -t UTF-8 {path.name} > utf8-{path.name}`."
            )


def too_long(num_bytes: int, limits: ReadLimits, *, what: str = "line") -> str:
    """The fault of a line, row or object that is longer than allowed."""
    return (
        f"the {what} has {num_bytes:,} bytes, more than --max-line-bytes {limits.max_line_bytes:,}; "
        "shorten or split it, or raise the limit"
    )


def _skip_line(stream: BinaryIO) -> int:
    """Read to the end of the line in pieces and forget it; its length in bytes."""
    num_bytes = 0
    while piece := stream.readline(_CHUNK_BYTES):
        num_bytes += len(piece)
        if piece.endswith(b"\n"):
            break
    return num_bytes
