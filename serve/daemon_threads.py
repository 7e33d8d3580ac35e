"""Threads for work that may take long or never come back.

Not a ThreadPoolExecutor: Python waits for its threads at exit, and work that hangs must not keep the server from
ending. A thread that hangs keeps its place, so that not more than so many can.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads:
    """Belongs to one event loop."""

    def __init__(self, max_threads: int, name: str) -> None:
        self._places = asyncio.Semaphore(max_threads)
        self._name = name

    async def run(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What the function returns or raises. Cancelled, it leaves the thread to itself."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
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
                result = context.run(function, *args, **named)
            except BaseException as caught:  # noqa: BLE001 - handed over to whoever waits
                error = RuntimeError(repr(caught)) if isinstance(caught, StopIteration) else caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(end, result, error)

        threading.Thread(target=work, name=self._name, daemon=True).start()
        return cast("T", await answer)
