"""The time line of a start: which stage ended when, counted from the beginning of the gateway's process.

Each stage is one line of the log. `hotswap doctor --startup` reads them from the log of a start that it makes.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

logger = logging.getLogger("hotswap.start")

READY = "ready"
"""The last stage."""

_START_TICKS_FIELD = (
    19  # of /proc/self/stat, counted after the name in brackets: field 22 of proc_pid_stat(5)
)


def process_began() -> float:
    """When this process began, on the clock of `time.monotonic`, which all processes of a machine share."""
    if sys.platform == "linux":
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        after_boot = int(fields[_START_TICKS_FIELD]) / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot)
    import psutil

    return time.monotonic() - (time.time() - psutil.Process().create_time())


def note_stage(stage: str, at: float | None = None) -> None:
    """Write down that `stage` ended now, or at that time of `time.monotonic`."""
    seconds = (time.monotonic() if at is None else at) - process_began()
    logger.info(
        "start: %s after %.2f s", stage, seconds, extra={"stage": stage, "stage_seconds": round(seconds, 3)}
    )
