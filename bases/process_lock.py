"""One process at a time does a thing; the lock ends with the process whatever happens to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_process(lock_file: Path, when_taken: Callable[[], None]) -> Iterator[None]:
    """Hold `lock_file`, whose folder exists, while the block runs.

    Where another process holds it, `when_taken` is called once: it says that this one waits, and returns, or it
    raises, and nothing is waited for. Raises OSError where the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        when_taken()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
