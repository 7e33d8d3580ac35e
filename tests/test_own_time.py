"""The clock of limits counts what this process did, and not what others took from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.own_time import own_seconds

LINUX = sys.platform == "linux"
BUSY = """
import os, time
os.sched_setaffinity(0, {CORE})
end = time.monotonic() + 60
while time.monotonic() < end:
    pass
"""


def test_sleeping_and_computing_count_in_full():
    for work in (lambda: time.sleep(0.2), lambda: sum(range(3_000_000))):
        own, clock = own_seconds(), time.monotonic()
        work()
        passed = time.monotonic() - clock
        assert own_seconds() - own <= passed + 1e-3
    own = own_seconds()
    time.sleep(0.2)
    assert own_seconds() - own >= 0.2 - 1e-3


@pytest.mark.skipif(not LINUX, reason="only Linux tells how long a thread stood ready")
def test_what_others_take_does_not_count():
    cores = os.sched_getaffinity(0)
    core = min(cores)
    others = [subprocess.Popen([sys.executable, "-c", BUSY.replace("CORE", str(core))]) for _ in range(3)]
    try:
        os.sched_setaffinity(0, {core})
        own, clock = own_seconds(), time.monotonic()
        cpu = time.process_time()
        while time.process_time() - cpu < 0.5:
            pass
        passed, counted = time.monotonic() - clock, own_seconds() - own
    finally:
        os.sched_setaffinity(0, cores)
        for other in others:
            other.kill()
            other.wait()
    # As much as was computed, however long it took beside the others.
    assert passed > counted
    assert 0.5 <= counted < 0.5 + (passed - 0.5) / 2
