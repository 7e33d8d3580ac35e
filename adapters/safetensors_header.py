"""A strict reader for the header of a safetensors file: no library sees the file before this has passed it.

The format: 8 bytes little-endian header length, that many bytes of JSON, then the data. The JSON is
`{"name": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}, "__metadata__": {...}}`.
Offsets count from the end of the header. The rules here are the format's own plus what an adapter needs:
the data is covered completely and exactly once, in one of three float types.
Source: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from adapters.errors import AdapterFileError, SafetensorsHeaderError
from adapters.strict_json import parse_json_object

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 1024 * 1024
MAX_DIMENSIONS = 8
MAX_NAME_CHARACTERS = 512
DTYPE_BYTES: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where one tensor lies: `start` and `end` are byte positions in the whole file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        return self.end - self.start


def read_header_length(prefix: bytes, *, file_bytes: int, max_header_bytes: int = MAX_HEADER_BYTES) -> int:
    """Return the header length that the first 8 bytes claim, once it is known to be plausible."""
    if len(prefix) < LENGTH_BYTES:
        raise SafetensorsHeaderError(
            f"The weights file has {file_bytes} bytes; a safetensors file has at least {LENGTH_BYTES}."
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > max_header_bytes:
        raise SafetensorsHeaderError(
            f"The weights file claims a header of {length} bytes; at most {max_header_bytes} are accepted. "
            "It is not a safetensors file, or not one of an adapter."
        )
    if length > file_bytes - LENGTH_BYTES:
        raise SafetensorsHeaderError(
            f"The weights file is cut off: its header needs {length} bytes, "
            f"{file_bytes - LENGTH_BYTES} follow."
        )
    if length < 2:
        raise SafetensorsHeaderError(
            f"The weights file claims a header of {length} bytes: no JSON fits in it."
        )
    return length


def parse_header(
    head: bytes, *, file_bytes: int, max_header_bytes: int = MAX_HEADER_BYTES
) -> dict[str, TensorEntry]:
    """Return the tensors of a file of `file_bytes` bytes that begins with `head`, by name.

    `head` must hold the length and the header; what follows in it is not looked at.
    Raises SafetensorsHeaderError, and nothing else, for every other content.
    """
    length = read_header_length(head, file_bytes=file_bytes, max_header_bytes=max_header_bytes)
    raw = head[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(raw) < length:
        raise SafetensorsHeaderError(
            f"The weights file is cut off: {len(raw)} of {length} header bytes follow."
        )
    if not raw.startswith(b"{"):
        raise SafetensorsHeaderError("The header of the weights file does not start with '{'.")
    try:
        table = parse_json_object(raw, what="The header of the weights file", integers_only=True)
    except AdapterFileError as error:
        raise SafetensorsHeaderError(str(error)) from error
    _check_metadata(table.pop("__metadata__", {}))
    if not table:
        raise SafetensorsHeaderError("The weights file holds no tensors.")
    data_start = LENGTH_BYTES + length
    entries = {name: _parse_entry(name, info, data_start) for name, info in table.items()}
    _check_coverage(entries, data_start=data_start, file_bytes=file_bytes)
    return entries


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise SafetensorsHeaderError("__metadata__ in the header of the weights file must map text to text.")


def _parse_entry(name: str, info: Any, data_start: int) -> TensorEntry:
    shown = ascii(name if len(name) <= 120 else name[:117] + "...")

    def refuse(message: str) -> NoReturn:
        raise SafetensorsHeaderError(f"Tensor {shown} in the weights file {message}")

    if not name or len(name) > MAX_NAME_CHARACTERS:
        refuse(f"has a name of {len(name)} characters; 1 to {MAX_NAME_CHARACTERS} are accepted.")
    if not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        refuse("must have exactly dtype, shape and data_offsets.")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str):
        refuse("has a dtype that is not text.")
    if dtype not in DTYPE_BYTES:
        raise SafetensorsHeaderError(
            f"Tensor {shown} in the weights file has dtype {dtype[:40]!a}; an adapter is "
            f"{', '.join(DTYPE_BYTES)}. Save it again in one of these.",
            reason="dtype",
        )
    if not _is_integer_list(shape) or len(shape) > MAX_DIMENSIONS:
        refuse(f"must have a shape of at most {MAX_DIMENSIONS} integers.")
    if not _is_integer_list(offsets) or len(offsets) != 2:
        refuse("must have two integers as data_offsets.")
    begin, end = offsets
    needed = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != needed:
        refuse(f"takes the bytes {begin} to {end}, but its shape {shape} of {dtype} needs {needed} bytes.")
    return TensorEntry(dtype, tuple(shape), data_start + begin, data_start + end)


def _is_integer_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _check_coverage(entries: Mapping[str, TensorEntry], *, data_start: int, file_bytes: int) -> None:
    """Raise unless the tensors cover the data from its first to its last byte, each byte once."""
    position = data_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            what = "overlaps the tensor before it" if entry.start < position else "leaves a gap before it"
            raise SafetensorsHeaderError(
                f"Tensor {name[:120]!a} in the weights file {what}: it starts at byte {entry.start}, "
                f"expected {position}."
            )
        position = entry.end
    if position != file_bytes:
        what = "cut off" if position > file_bytes else "followed by bytes that belong to no tensor"
        raise SafetensorsHeaderError(
            f"The weights file is {what}: its tensors end at byte {position}, the file has {file_bytes}."
        )
