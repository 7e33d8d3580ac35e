"""Where the files of versions are checked, copied and hashed: behind everybody's tokens.

That is tens of milliseconds of a processor for a small adapter. In a thread of the gateway they are taken from the
engine, whose threads wait for each other in every step, and a thread of low priority would be worse: it holds the
interpreter's lock while it waits for its turn, and the event loop with it. So a process does it whose priority is
low; it is started by the first load, and threads do the work until it is there and when it has died.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, ParamSpec, TypeVar

from serve.engine.orphan import die_with

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("hotswap.adapters")

# With both cores computing it gets about a tenth of one.
NICENESS = 10
# A second adapter need not wait for a large one; started when it is needed.
MAX_PROCESSES = 2


class FileWork:
    """Runs what reads and writes the files of versions. Belongs to one event loop."""

    def __init__(self, *, in_process: bool = False) -> None:
        """`in_process`: not in threads, where there is an engine that needs the processor."""
        self._in_process = in_process
        self._pool: ProcessPoolExecutor | None = None
        self._starting: Future[None] | None = None

    def expect(self) -> None:
        """Something is going to be loaded: start the process unless it is there, or threads are to do the work."""
        if not self._in_process or self._pool is not None:
            return
        self._pool = ProcessPoolExecutor(
            MAX_PROCESSES, mp_context=multiprocessing.get_context("spawn"), initializer=_step_back
        )
        self._starting = self._pool.submit(_get_ready)

    @property
    def process_is_ready(self) -> bool:
        """Whether the next work goes there."""
        starting = self._starting
        return starting is not None and starting.done() and starting.exception() is None

    async def wait_ready(self) -> None:
        """Return when the process is ready, or will not be."""
        if self._starting is not None:
            await asyncio.wait({asyncio.wrap_future(self._starting)})

    async def run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """What `work` returns or raises: a function that a process can be sent, with its arguments and result."""
        pool = self._pool
        if pool is not None and self.process_is_ready:
            call = functools.partial(work, *arguments, **named)
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, call)
            except BrokenProcessPool:
                logger.warning(
                    "the process for adapter files ended; threads do its work until there is another"
                )
                await self.close()
        return await asyncio.to_thread(work, *arguments, **named)

    async def close(self) -> None:
        """End the process once its work is done. Idempotent."""
        pool, self._pool, self._starting = self._pool, None, None
        if pool is not None:
            await asyncio.to_thread(functools.partial(pool.shutdown, cancel_futures=True))


def _step_back() -> None:
    """In the new process: last in line, gone with the gateway, and deaf to the terminal's Ctrl-C."""
    os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None and sys.platform == "linux":
        die_with(parent.pid)


def _get_ready() -> None:
    """Import what the work needs."""
    import numpy

    import adapters.check
    import adapters.store.store

    _: Any = (numpy, adapters.check, adapters.store.store)
