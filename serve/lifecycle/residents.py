"""How many adapters the engine holds, without waiting for a step of it.

The engine answers between two steps, and a step with long prompts takes most of a second: whoever only looks at the
list gets what it said last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

PATIENCE_SECONDS = 0.005  # an engine between two steps answers within two milliseconds


class Residents:
    """Belongs to one event loop. One question at a time is under way, however many look."""

    def __init__(
        self, ask: Callable[[], Awaitable[Collection[int]]], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """`ask` gives the ids of what the engine holds now."""
        self._ask = ask
        self._patience_seconds = patience_seconds
        self._asking: asyncio.Task[int] | None = None
        self._last: int | None = None

    async def count(self) -> int:
        """The engine's answer, or the one before when it takes longer than the patience. The first is waited for.

        Raises what `ask` raises.
        """
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._question(), name="count adapters")
            self._asking.add_done_callback(_look_at)  # perhaps nobody waits for it any more
        asking = self._asking
        patience = self._patience_seconds if self._last is not None else None
        done, _ = await asyncio.wait({asking}, timeout=patience)
        if not done and self._last is not None:
            return self._last
        return asking.result()

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    async def _question(self) -> int:
        try:
            self._last = len(await self._ask())
        finally:
            self._asking = None
        return self._last


def _look_at(asked: asyncio.Task[int]) -> None:
    if not asked.cancelled():
        asked.exception()
