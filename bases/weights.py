"""Safetensors weights as bytes: which files count, what they hold, one hash over all of it. No torch.

The hash depends on the tensors alone (name, dtype, shape, bytes), not on how they are spread over files or
in which order, so resharding a base does not make it another base.
Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bases.errors import BaseInvalidError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
_CHUNK_BYTES = 8 * 1024 * 1024
# The format's own limit; anything larger is not a header (a Git LFS pointer reads as an absurd length).
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a safetensors file: `[start_byte, end_byte)` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start_byte: int
    end_byte: int


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers and vLLM load from `folder`, sorted; listed ones may not exist.

    The index decides if there is one, then `model.safetensors`, then every top-level safetensors file (some
    repositories carry the same weights a second time under another name).

    Raises BaseInvalidError if the index is not readable.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BaseInvalidError(
                f"{index} is not a safetensors index: {error!r}. Fetch it again."
            ) from error
        return sorted(folder / str(name) for name in names)
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    return sorted(path for path in folder.glob("*.safetensors") if path.is_file())


def read_tensors(file: Path) -> Iterator[StoredTensor]:
    """Yield what the header of one safetensors file lists; BaseInvalidError if header and file disagree."""
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= header_bytes <= min(_MAX_HEADER_BYTES, size_bytes - 8):
            raise BaseInvalidError(
                f"{file} is not a complete safetensors file ({size_bytes} bytes). A Git LFS pointer, or a "
                "download that was cut off? Fetch it again."
            )
        raw = stream.read(header_bytes)
    try:
        header = json.loads(raw)
        entries = [
            (str(name), str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), entry["data_offsets"])
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        tensors = [
            StoredTensor(name, dtype, shape, file, 8 + header_bytes + int(start), 8 + header_bytes + int(end))
            for name, dtype, shape, (start, end) in entries
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseInvalidError(
            f"{file} has a broken safetensors header: {error!r}. Fetch it again."
        ) from error
    for tensor in tensors:
        if not 8 + header_bytes <= tensor.start_byte <= tensor.end_byte <= size_bytes:
            raise BaseInvalidError(
                f"{file} is cut off: tensor {tensor.name!r} ends at byte {tensor.end_byte}, the file has "
                f"{size_bytes}. Fetch it again."
            )
        yield tensor


def hash_weights(folder: Path) -> tuple[str, int]:
    """Return (sha256 hex over all tensors of `folder` sorted by name, their total size in bytes).

    Raises BaseInvalidError if there are no weights, a file is broken, or a tensor name occurs twice.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        for tensor in read_tensors(file):
            if tensor.name in tensors:
                raise BaseInvalidError(
                    f"Tensor {tensor.name!r} is in both {tensors[tensor.name].file.name} and {file.name} of "
                    f"{folder}. Remove the file that does not belong, or add {INDEX_FILE}."
                )
            tensors[tensor.name] = tensor
    if not tensors:
        raise BaseInvalidError(f"{folder} has no safetensors weights.")
    digest = hashlib.sha256()
    total_bytes = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode() + b"\n")
        _hash_range(digest, tensor)
        total_bytes += tensor.end_byte - tensor.start_byte
    return digest.hexdigest(), total_bytes


def _hash_range(digest: hashlib._Hash, tensor: StoredTensor) -> None:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start_byte)
        left_bytes = tensor.end_byte - tensor.start_byte
        while left_bytes:
            chunk = stream.read(min(_CHUNK_BYTES, left_bytes))
            if not chunk:
                raise BaseInvalidError(f"{tensor.file} became shorter while it was read. Fetch it again.")
            digest.update(chunk)
            left_bytes -= len(chunk)
