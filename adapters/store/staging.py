"""Folders inside the store in which something is being received or copied; nobody sees a version in them.

Each belongs to the process that made it, by a lock: what a process that ended left behind is told from what another
one is still writing, however long that takes.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from adapters.store.byte_locks import NO_LOCKS_ERRORS, ByteLocks
from adapters.store.disk import READ_ONLY_ERRORS, delete_folder, store_errors

PREFIX = ".unfinished-"
# Where nothing can be locked, a folder that nobody has finished for this long belongs to a process that ended.
STALE_AFTER_SECONDS = 3600.0
# Held by each who makes a folder until its own lock is taken, and alone by whoever looks for abandoned ones.
_MAKING = "making a folder"
_WAIT_SECONDS = 60.0


class Staging:
    """The unfinished folders of one store. Its methods block, and may be called from several threads."""

    def __init__(self, root: Path, lock_file: Path) -> None:
        self._root = root
        self._lock_file = lock_file
        self._owned: dict[Path, ByteLocks] = {}

    def open(self) -> Path:
        """A new folder, this process's own until `close`. Raises AdapterStoreError."""
        with store_errors("make a folder in the store"), contextlib.ExitStack() as stack:
            locks = self._open_locks()
            if locks is None:
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._root))
            stack.push(locks)
            locks.wait(_MAKING, alone=False, seconds=_WAIT_SECONDS)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._root))
            locks.wait(folder.name, alone=True, seconds=_WAIT_SECONDS)
            locks.leave(_MAKING)
            stack.pop_all()
            self._owned[folder] = locks
        return folder

    def close(self, folder: Path) -> None:
        """Delete a folder and what is in it. What cannot be deleted stays for `clean`."""
        with contextlib.suppress(OSError):
            delete_folder(folder)
        locks = self._owned.pop(folder, None)
        if locks is not None:
            locks.close()

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A new folder for the length of the block, unless it was moved away by then."""
        folder = self.open()
        try:
            yield folder
        finally:
            self.close(folder)

    def clean(self, *, stale_after_seconds: float = STALE_AFTER_SECONDS) -> int:
        """Delete what ended processes have left; return how many folders went.

        `stale_after_seconds` decides where nothing can be locked. What cannot be deleted stays: a store that is not
        writable still serves. Raises AdapterStoreError.
        """
        with store_errors("clean the store"):
            locks = self._open_locks()
            if locks is None:
                abandoned = [entry for entry in self._entries() if _age(entry) >= stale_after_seconds]
                return sum(map(_delete, abandoned))
            with locks:
                if not locks.take(
                    _MAKING, alone=True
                ):  # somebody makes one, so is alive; the next start cleans
                    return 0
                abandoned = [entry for entry in self._entries() if locks.take(entry.name, alone=True)]
                return sum(map(_delete, abandoned))

    def release(self) -> None:
        """Let go of all folders, which stay for `clean`. Idempotent."""
        while self._owned:
            self._owned.popitem()[1].close()

    def _entries(self) -> list[Path]:
        return [entry for entry in self._root.iterdir() if entry.name.startswith(PREFIX)]

    def _open_locks(self) -> ByteLocks | None:
        """None where nothing can be locked."""
        try:
            locks = ByteLocks(self._lock_file)
        except OSError as error:
            if error.errno in READ_ONLY_ERRORS:
                return None
            raise
        try:
            locks.take("whether there are locks", alone=False)
        except OSError as error:
            locks.close()
            if error.errno in NO_LOCKS_ERRORS:
                return None
            raise
        return locks


def _age(entry: Path) -> float:
    """Seconds since something was made or moved in it."""
    try:
        return time.time() - entry.stat().st_mtime
    except FileNotFoundError:  # its owner finished just now
        return 0.0


def _delete(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        delete_folder(folder)
        return True
    return False
