"""Lets the engine's process make way for the gateway's where both want the same core.

On a CPU the engine computes on every core for as long as it has work. The gateway's share is a few milliseconds for
each request, but at equal rank it waits for a time slice of the engine's at each of its steps. Called in each of
vLLM's processes through the plugin, before they have threads, which inherit it.
"""

from __future__ import annotations

import multiprocessing
import os

NICENESS_VARIABLE = "HOTSWAP_ENGINE_NICENESS"
"""How far the engine stands behind the gateway: 0 to 19, as nice(1) counts."""


def make_way() -> None:
    """In an engine's process: take the niceness that the gateway asked for. Elsewhere, and again, nothing."""
    asked = os.environ.get(NICENESS_VARIABLE, "0")
    if multiprocessing.parent_process() is None or not asked.isdigit():
        return
    more = int(asked) - os.getpriority(os.PRIO_PROCESS, 0)
    if more > 0:  # a process may never go back
        os.nice(more)
