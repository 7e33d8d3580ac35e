"""Locks on single bytes of one file, each byte for one key, shared or alone.

They belong to an open description of the file (Linux: open file description locks), so that two of them exclude
each other in one process as in two, and on a shared file system on two hosts. The kernel lets go of them when the
description is closed, and closes it when its process ends, however that ends: nothing stays behind to be cleaned.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from adapters.errors import AdapterStoreError

# What a file system says that has no such locks.
NO_LOCKS_ERRORS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_LOOK_AGAIN_SECONDS = 0.005
_FLOCK = "hhqqi0q"  # struct flock of a 64-bit Linux: type, whence, start, length, process


class ByteLocks:
    """One open description of a lock file. Its methods may be called from several threads."""

    def __init__(self, path: Path, *, alone: bool = True) -> None:
        """`alone`: for locks that exclude all others, too, which need a file that can be written.

        The file is made when it does not exist. Raises OSError.
        """
        # Not inherited by a program that is started from here: it would hold on to what this process let go of.
        self._descriptor: int | None = os.open(
            path, (os.O_RDWR if alone else os.O_RDONLY) | os.O_CREAT | os.O_CLOEXEC, 0o666
        )

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self, key: str, *, alone: bool) -> bool:
        """Lock a key if that can be done at once; whether it was. Raises OSError where there are no locks."""
        try:
            self._lock(key, fcntl.F_WRLCK if alone else fcntl.F_RDLCK)
        except BlockingIOError:  # somebody else has it
            return False
        return True

    def wait(self, key: str, *, alone: bool, seconds: float) -> None:
        """Lock a key, waiting so long for others. Raises AdapterStoreError, and OSError as `take`."""
        deadline = time.monotonic() + seconds
        while not self.take(key, alone=alone):
            if time.monotonic() > deadline:
                raise AdapterStoreError(
                    f"Another process has been working on the same files of the adapter store for {seconds:g} s. "
                    "Try again when it has finished, or see what holds it up."
                )
            time.sleep(_LOOK_AGAIN_SECONDS)

    def leave(self, key: str) -> None:
        """Let go of a key. Raises OSError."""
        self._lock(key, fcntl.F_UNLCK)

    def _lock(self, key: str, kind: int) -> None:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the lock file is closed")
        fcntl.fcntl(
            self._descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, _byte_of(key), 1, 0)
        )


def _byte_of(key: str) -> int:
    """Two keys on one byte, which nobody will see, would only keep files longer than they are needed."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 2
