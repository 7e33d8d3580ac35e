"""Whose parent is killed ends too, if it is an engine."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serve.engine.orphan import follow_parent
from tests.patience import patient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part of it is Linux")
PROJECT = Path(__file__).resolve().parents[3]
SOON_SECONDS = patient(5.0)
_PR_GET_PDEATHSIG = 2  # <linux/prctl.h>


@contextlib.contextmanager
def family(name: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A parent and its child of that name, which has called `follow_parent`."""
    command = [sys.executable, "-m", "tests.serve.engine.orphan_family", name]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        assert parent.stdout.readline() == "follows\n"
        yield parent, child
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def gone(process: psutil.Process, seconds: float) -> bool:
    """Whether it ends within that time; one that nobody has reaped yet has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


@pytest.mark.parametrize("name", ["EngineCore", "EngineCore_DP1"])
def test_an_engine_ends_with_its_gateway(name: str) -> None:
    with family(name) as (parent, child):
        parent.kill()
        assert gone(child, SOON_SECONDS)


def test_a_stopped_engine_ends_with_it_too() -> None:
    with family("EngineCore") as (parent, child):
        child.send_signal(signal.SIGSTOP)
        parent.kill()
        assert gone(child, SOON_SECONDS)


def test_other_processes_are_left_alone() -> None:
    with family("VllmWorker-0") as (parent, child):
        parent.kill()
        parent.wait()
        assert not gone(child, 0.3)


def test_the_gateway_itself_follows_nobody() -> None:
    follow_parent()
    asked = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(asked), 0, 0, 0)
    assert asked.value == 0
