"""Time as this process had it: what others took of the processors does not count."""

from __future__ import annotations

import time
from pathlib import Path

_SCHEDULE = Path("/proc/thread-self/schedstat")


def own_seconds() -> float:
    """The clock, less the time for which this thread stood ready to run and others had the processors; seconds.

    For limits on what a test and a server in its own event loop do: both stand still together when the machine is
    busy with something else, and neither was slow. Where the system does not tell (Linux does), the clock alone.
    Its differences within one thread mean something, nothing else.
    """
    try:
        waited_ns = int(_SCHEDULE.read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        waited_ns = 0
    return time.monotonic() - waited_ns / 1e9
