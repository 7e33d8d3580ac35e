"""Who still needs the files of a version: counted in this process, and seen by every other one.

A hold is a shared lock on the version's byte of one file in the store (byte_locks.py). Whoever removes a version
takes that byte alone first, and looks into the registry while it has it: so files never go under a holder, nobody
can begin to hold what is just being removed, and what a process held that was killed is free at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path

from adapters.errors import AdapterStoreError
from adapters.store.byte_locks import NO_LOCKS_ERRORS, ByteLocks
from adapters.store.disk import FULL_ERRORS, READ_ONLY_ERRORS, store_errors

logger = logging.getLogger("hotswap.adapters")

# Somebody who removes a version asks the registry meanwhile, which has this long to answer.
WAIT_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 0.005


class Hold:
    """The right to find a version's files where they are, until `release`."""

    def __init__(self, holds: Holds | None, digest: str) -> None:
        self._holds = holds
        self._digest = digest

    def release(self) -> None:
        """Need them no more. Idempotent."""
        holds, self._holds = self._holds, None
        if holds is not None:
            holds.drop(self._digest)


class Holds:
    """What this process holds in one store. Its methods block, and may be called from several threads."""

    def __init__(self, path: Path) -> None:
        """`path`: the store's lock file, opened when the first hold is taken."""
        self._path = path
        self._locks: ByteLocks | None = None
        self._counts: Counter[str] = Counter()
        self._mutex = threading.Lock()
        self._warned = False

    def take(self, digest: str) -> Hold:
        """Hold a version, which need not be there yet.

        Waits while somebody removes it. Where there can be no lock file, on a disk that is full, read-only or
        without locks, the hold is an empty one, and nobody can remove anything either. Raises AdapterStoreError.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                if self._try(digest):
                    return Hold(self, digest)
            except OSError as error:
                if error.errno not in READ_ONLY_ERRORS | FULL_ERRORS | NO_LOCKS_ERRORS:
                    with store_errors("hold a version"):
                        raise
                self._warn(error)
                return Hold(None, digest)
            if time.monotonic() > deadline:
                raise AdapterStoreError(
                    f"Version {digest[:8]} is being removed by another process, for {WAIT_SECONDS:g} s now. "
                    "See whether that process and the registry are well, and try again."
                )
            time.sleep(_LOOK_AGAIN_SECONDS)

    def drop(self, digest: str) -> None:
        """Take one hold back; called by `Hold.release` alone."""
        with self._mutex:
            if self._locks is None:  # closed meanwhile
                return
            self._counts[digest] -= 1
            if not self._counts[digest]:
                del self._counts[digest]
                self._locks.leave(digest)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        with self._mutex:
            locks, self._locks = self._locks, None
            self._counts.clear()
            if locks is not None:
                locks.close()

    def _try(self, digest: str) -> bool:
        with self._mutex:
            if self._locks is None:
                # To read alone: an open file that can be written keeps its disk from becoming read-only.
                self._locks = ByteLocks(self._path, alone=False)
            if not self._counts[digest] and not self._locks.take(digest, alone=False):
                return False
            self._counts[digest] += 1
            return True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "versions in the store cannot be held: %s; no other gateway may remove any there",
                error.strerror,
            )
