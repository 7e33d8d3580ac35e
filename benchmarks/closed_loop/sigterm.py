"""A measurement that is told to end takes its servers with it."""

from __future__ import annotations

import signal


def end_on_sigterm() -> None:
    """From now on SIGTERM is like Ctrl-C in this process: what is open is closed, servers that are up among it."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
