"""SIGTERM ends a measurement like Ctrl-C, so that the servers it started end with it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


def end_on_sigterm() -> None:
    """From now on SIGTERM is like Ctrl-C in this process: what is open is closed, servers that are up among it."""
    signal.signal(signal.SIGTERM, _interrupt)


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """The same for the length of the block. Signals belong to the main thread: elsewhere nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
