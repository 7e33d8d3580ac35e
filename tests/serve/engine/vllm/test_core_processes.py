"""The engine core's processes are found by vLLM's name for them, with what they started, and end at once."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from multiprocessing.connection import Connection

import psutil

from serve.engine.vllm.core_processes import core_processes, end_processes

_SPAWN = multiprocessing.get_context("spawn")


def stopped_with_a_worker(told: Connection) -> None:
    """Stands for an engine core: starts a worker, says its number, then waits."""
    worker = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    told.send(worker.pid)
    signal.pause()


def test_core_and_workers_are_found_and_ended_even_when_they_are_stopped() -> None:
    ours, theirs = _SPAWN.Pipe()
    core = _SPAWN.Process(target=stopped_with_a_worker, args=(theirs,), name="EngineCore_DP0")
    other = _SPAWN.Process(target=signal.pause, name="Something")
    core.start()
    other.start()
    try:
        worker = psutil.Process(ours.recv())
        found = core_processes()
        assert {process.pid for process in found} == {core.pid, worker.pid}
        psutil.Process(core.pid).suspend()
        end_processes(found, wait_seconds=30)
        assert not psutil.pid_exists(found[0].pid)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
        assert core_processes() == []
        assert other.is_alive()
        end_processes(found, wait_seconds=30)  # of processes that are gone nothing is left to do
    finally:
        for process in (core, other):
            process.kill()
            process.join()
