"""Where the kernels' source is and where a library made from it lies: one answer for who builds and who loads.

The folder of a library is named by everything that it depends on and that a loading process knows without a
compiler: source, flags, torch's version and the processor's family. Which compiler made it is written beside it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from types import MappingProxyType

SOURCE = Path(__file__).resolve().parent / "kernels"
LIBRARY_NAME = "hotswap_lowbit.so"
RECORD_NAME = "build.json"

COMMON_FLAGS = ("-std=c++20", "-fPIC", "-fvisibility=hidden", "-w")

# No contraction: a * b + c is two roundings where the source says so, as in PyTorch.
KERNEL_FLAGS = ("-O3", "-ffp-contract=off")

_AVX512_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma")

ISA_FLAGS = MappingProxyType(
    {
        "avx2": ("-mavx2", "-mfma"),
        "avx512": _AVX512_FLAGS,
        "avx512bf16": (*_AVX512_FLAGS, "-mavx512bf16"),
    }
)

BINDING_FLAGS = ("-O2", "-fopenmp")


def torch_version() -> str:
    """Version of the installed torch, found without importing it."""
    return importlib.metadata.version("torch")


def library_key() -> str:
    """Name of the folder of a library made from this source for this torch."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    flags = (COMMON_FLAGS, KERNEL_FLAGS, sorted(ISA_FLAGS.items()), BINDING_FLAGS)
    digest.update(repr((flags, torch_version(), platform.machine())).encode())
    return digest.hexdigest()[:16]


def library_folder(home: Path) -> Path:
    """`<home>/kernels/<key>`, whether it is there or not."""
    return home / "kernels" / library_key()


def find_library(home: Path) -> Path | None:
    """The compiled library for this source and torch, None where it has not been built."""
    path = library_folder(home) / LIBRARY_NAME
    return path if path.is_file() else None
