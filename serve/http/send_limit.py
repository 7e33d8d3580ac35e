"""A limit on how long a client may take to read, without a timer for what it takes at once.

Nearly every event of a stream goes into the connection's buffer and waits for nobody: a timer for each of them
would cost more than sending it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from types import CoroutineType
from typing import Any


async def within(sending: Awaitable[None], seconds: float) -> None:
    """Await `sending`, whose first step is taken at once. Raises TimeoutError where it waits for longer."""
    if isinstance(sending, CoroutineType):
        try:
            waits_for = sending.send(None)
        except StopIteration:
            return
        sending = _Begun(sending, waits_for)
    async with asyncio.timeout(seconds):
        await sending


class _Begun(Generator[Any, Any, None]):
    """What is left of a coroutine that was begun and waits for a future: what `await` makes of a whole one."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._is_told = False

    def __await__(self) -> _Begun:
        return self

    def send(self, value: Any) -> Any:
        """Go on, and say what it waits for next."""
        if self._is_told:
            return self._coroutine.send(value)
        self._is_told = True
        return self._waits_for

    def throw(self, *error: Any) -> Any:
        """Go on with an error, most often a cancellation."""
        return self._coroutine.throw(*error)
