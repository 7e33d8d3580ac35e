"""What is asked of a disk: names that stay, and an OSError where a library raises something else when full."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIED_BYTES = 4096
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
# Rust's libraries put the number at the end of a text.
_NUMBER = re.compile(r"\(os error (\d+)\)")
# torch.save keeps no number.
_TORCH = re.compile(
    r"inline_container\.cc|PytorchStreamWriter|iostream error|Parent directory .* does not exist"
)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise OSError where safetensors, tokenizers or torch.save raise something else at a file they cannot write.

    Every other error passes through.
    """
    try:
        yield
    except OSError:
        raise
    # safetensors has an exception of its own, tokenizers raises a bare Exception, torch a RuntimeError.
    except Exception as error:
        found = _as_os_error(error)
        if found is None:
            raise
        raise found from error


def is_unwritable(error: OSError) -> bool:
    """Whether it says that a place takes no more, or nothing from this user."""
    return error.errno in _FULL or error.errno in _FORBIDDEN


def why_unwritten(error: OSError) -> str:
    """Why a place could not be written and what to do, as the end of a sentence and one more."""
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return f"{said}. Free space there, or name another place."
    return f"{said}. See that this user may write there, or name another place."


def check_writable(folder: Path) -> None:
    """Raise OSError where no file could be written below `folder`, which need not be there; leaves nothing behind.

    For whatever works long before it writes. A file is written, because permissions say nothing to root and nothing
    of a disk that is full.
    """
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    descriptor, name = tempfile.mkstemp(prefix=".hotswap-", dir=nearest)
    try:
        with os.fdopen(descriptor, "wb") as tried:
            tried.write(bytes(_TRIED_BYTES))
    finally:
        Path(name).unlink()


def sync_names(folder: Path) -> None:
    """Flush the names in `folder` to the disk, so that a rename outlives a loss of power. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_os_error(error: Exception) -> OSError | None:
    text = str(error)
    number = _NUMBER.search(text)
    if number is not None:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, RuntimeError) and _TORCH.search(text):
        return OSError(errno.EIO, "torch could not write all of it")
    return None
