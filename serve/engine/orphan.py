"""Ends an engine process whose gateway is gone.

vLLM's engine core does not notice when the process that started it is killed: it would keep its memory, and its
GPU, until somebody finds it. So the kernel is asked to kill it together with its parent (PR_SET_PDEATHSIG), which
also works while it is stopped or in a long step. Called in each of vLLM's processes through the plugin.

The kernel means the thread that started the process. In the gateway that is a thread of the event loop's executor,
which lives as long as the loop; workers of the engine core have vLLM's own pipe for this and are left alone.

Where a fork server stands between the two (serve/engine/cpu/forked_core.py), it follows the gateway and the engine
core follows it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

SERVER_VARIABLE = "HOTSWAP_FORK_SERVER_OF"
"""In the environment of a fork server: the process that started it."""

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_CORE_NAME = "EngineCore"

_server_id: int | None = (
    None  # of this process or of the one that it was forked from, if that is a fork server
)


def follow_starter() -> None:
    """In a fork server: die with whoever started it, and let its children die with it. Elsewhere nothing."""
    global _server_id
    starter = os.environ.pop(SERVER_VARIABLE, "")
    if starter:
        _server_id = os.getpid()
        die_with(int(starter))


def follow_parent() -> None:
    """In an engine core process: die with the gateway. Elsewhere, and where there is no Linux, nothing."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or sys.platform != "linux":
        return
    if multiprocessing.current_process().name.startswith(_CORE_NAME):
        die_with(_server_id or parent.pid)


def die_with(parent_id: int) -> None:
    """Let the kernel kill this process together with its parent, which has that id. For Linux."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_id:  # it went before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
