"""Ends an engine process whose gateway is gone.

vLLM's engine core does not notice when the process that started it is killed: it would keep its memory, and its
GPU, until somebody finds it. So the kernel is asked to kill it together with its parent (PR_SET_PDEATHSIG), which
also works while it is stopped or in a long step. Called in each of vLLM's processes through the plugin.

The kernel means the thread that started the process. In the gateway that is a thread of the event loop's executor,
which lives as long as the loop; workers of the engine core have vLLM's own pipe for this and are left alone.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_CORE_NAME = "EngineCore"


def follow_parent() -> None:
    """In an engine core process: die with the gateway. Elsewhere, and where there is no Linux, nothing."""
    parent = multiprocessing.parent_process()
    if parent is None or sys.platform != "linux":
        return
    if not multiprocessing.current_process().name.startswith(_CORE_NAME):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent.pid:  # it went before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
