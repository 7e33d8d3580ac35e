"""Which gateway of its host this is: a name that is nobody else's while it lives, and its own after a restart.

What an operation's row says is running ends with the process that ran it. The next process of that name writes so
down, and it must not say so of one that lives: several gateways may serve from one home. So each holds a lock on a
numbered place of the home for as long as it lives, the lowest that is free; whoever can take a place knows that the
one before is gone, however it ended.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import secrets
import socket
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger("hotswap.operations")

FOLDER = "gateways"  # of the home


class Instance:
    """The place that this process holds, until `leave` or its end."""

    def __init__(self, name: str, lock: FileLock | None) -> None:
        self.name = name
        self._lock = lock

    def leave(self) -> None:
        """Let the next one have it. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def take_instance(home: Path) -> Instance:
    """Take the lowest free place. In a home that cannot be written to the name is one of this life alone."""
    folder = home / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in itertools.count():
            lock = FileLock(
                folder / f"{place}.lock", thread_local=False
            )  # taken in one thread, left in another
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            if place:
                logger.info("this is gateway %d of those that serve from %s", place + 1, home)
            return Instance(instance_name(home, place), lock)
    except OSError as error:
        logger.warning("no place can be taken in %s: %s", folder, error.strerror or error)
    return Instance(secrets.token_hex(8), None)


def instance_name(home: Path, place: int = 0) -> str:
    """The name of a place of that home on this host, that tells neither."""
    parts = [socket.gethostname(), str(home), *([str(place)] if place else [])]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
