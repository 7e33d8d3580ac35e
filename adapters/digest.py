"""The digest that names a version: sha256 over what decides an adapter's outputs, and over nothing else.

Counted in: each tensor's name, dtype, shape and bytes; each module's rank, alpha and rank-stabilised
scaling; every feature flag that is on. Not counted: the order of tensors or keys, padding and metadata in the
files, the path of the base on the trainer's machine, library versions, dropout, how patterns are spelled. So
saving an adapter again with another version of PEFT gives the same version, and changing one weight gives
another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

from adapters.artefact import AdapterFile
from adapters.config import AdapterConfig
from adapters.safetensors_header import TensorEntry
from adapters.tensor_name import parse_tensor_name

DIGEST_FORMAT = "hotswap-adapter-1"
_LINES = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def compute_digest(
    weights: AdapterFile,
    tensors: Mapping[str, TensorEntry],
    config: AdapterConfig,
    *,
    observe: Callable[[str, memoryview], None] | None = None,
) -> str:
    """Return the digest as 64 hex digits, reading every tensor once.

    `observe` is given the name of a tensor and each piece of its bytes, so that the values can be looked at
    on the way. Raises AdapterFileError when the file cannot be read.
    """
    parsed = (parse_tensor_name(name) for name in tensors)
    modules = sorted({name.module for name in parsed if name is not None})
    digest = hashlib.sha256()
    digest.update(_line({"format": DIGEST_FORMAT, "config": config.identity(modules)}))
    for name, entry in sorted(tensors.items()):
        digest.update(_line([name, entry.dtype, entry.shape, entry.num_bytes]))
        for chunk in weights.chunks(entry.start, entry.end):
            digest.update(chunk)
            if observe is not None:
                observe(name, chunk)
    return digest.hexdigest()


def file_sha256(file: AdapterFile) -> str:
    """The plain sha256 of one file, as `sha256sum` prints it."""
    digest = hashlib.sha256()
    for chunk in file.chunks(0, file.num_bytes):
        digest.update(chunk)
    return digest.hexdigest()


def _line(value: object) -> bytes:
    return _LINES.encode(value).encode() + b"\n"
