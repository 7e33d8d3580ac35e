"""Threads for registry queries, and for nothing else.

A database that does not answer holds whoever asks it. In the threads that everything shares it would soon hold the
tokenizer of long prompts and the metrics as well, and then the end of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from serve.daemon_threads import DaemonThreads

P = ParamSpec("P")
T = TypeVar("T")

MAX_THREADS = 12  # fewer than SQLAlchemy's pool has connections

_threads: WeakKeyDictionary[asyncio.AbstractEventLoop, DaemonThreads] = WeakKeyDictionary()


async def ask_registry(function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """What a blocking function of the registry returns or raises. Cancelled, it leaves the call to itself."""
    loop = asyncio.get_running_loop()
    if loop not in _threads:
        _threads[loop] = DaemonThreads(MAX_THREADS, "registry")
    return await _threads[loop].run(function, *args, **named)
