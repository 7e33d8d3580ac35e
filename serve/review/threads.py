"""Threads for reviewers that may take long or never come back.

Not a ThreadPoolExecutor: Python waits for its threads at exit, and a reviewer that hangs must not keep the
server from ending. A thread that hangs keeps its place, so that not more than so many can.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

MAX_THREADS = 16


class ReviewThreads:
    """Belongs to one event loop."""

    def __init__(self, max_threads: int = MAX_THREADS) -> None:
        self._places = asyncio.Semaphore(max_threads)

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """What the function returns or raises. Cancelled, it leaves the thread to itself."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def end(result: Any, error: BaseException | None) -> None:
            self._places.release()
            if answer.cancelled():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        def work() -> None:
            result, error = None, None
            try:
                result = function(*args)
            except BaseException as caught:  # noqa: BLE001 - handed over to whoever waits
                error = RuntimeError(repr(caught)) if isinstance(caught, StopIteration) else caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(end, result, error)

        threading.Thread(target=work, name="review", daemon=True).start()
        return await answer
