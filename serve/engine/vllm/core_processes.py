"""The processes that vLLM starts for its engine core, and their end."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Sequence

import psutil

# vLLM's name for the processes that it starts, with a number after it if there are more.
_CORE_NAME = "EngineCore"


def core_processes() -> list[psutil.Process]:
    """The engine core processes that this process has started, and theirs."""
    found = []
    for child in multiprocessing.active_children():
        if child.name.startswith(_CORE_NAME) and child.pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                core = psutil.Process(child.pid)
                found += [core, *core.children(recursive=True)]
    return found


def end_processes(processes: Sequence[psutil.Process], *, wait_seconds: float) -> None:
    """Kill processes that may be stopped, and wait until they are gone, `wait_seconds` at most."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=wait_seconds)
