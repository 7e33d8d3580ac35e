"""What every verb on adapters has in common: one at a time on a name, an end with a cause, and a written trace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import JsonValue

from adapters.registry.records import Event
from bases.errors import HotswapError
from serve.errors import DrainingError
from serve.observability.events import EventLog
from serve.running import RunningRequests

logger = logging.getLogger("hotswap.adapters")

_RETRY_AFTER_SECONDS = 5
_MAX_REASON_CHARACTERS = 500

# What a verb says of itself: `digest` has its own column, the rest goes into the event's detail.
Trace = dict[str, JsonValue]


class NameLocks:
    """One lock for each name that somebody holds or waits for."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    def is_held(self, name: str) -> bool:
        """Whether anybody holds the lock of a name or waits for it."""
        return name in self._users

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of a name for the length of the block."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        self._users[name] = self._users.get(name, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._users[name] -= 1
            if self._users[name] == 0:
                del self._users[name], self._locks[name]


class Verbs:
    """Runs verbs. Belongs to one event loop."""

    def __init__(self, events: EventLog, running: RunningRequests) -> None:
        self.locks = NameLocks()
        self.engine_settled = asyncio.Event()  # cleared while adapters come back to a new engine
        self.engine_settled.set()
        self._events = events
        self._running = running
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closing = False

    @asynccontextmanager
    async def run(self, alias: str | None, action: str, actor: str) -> AsyncIterator[Trace]:
        """One verb, on a name or (None) on none; what it puts into the dictionary goes into its event.

        Raises DrainingError.
        """
        self.check_open()
        self._busy += 1
        self._quiet.clear()
        trace: Trace = {}
        outcome = "cancelled"
        try:
            # Tracked, so that a shutdown can end a verb as it ends a request: with a cause.
            with self._running.track(f"{action} {alias or ''}".rstrip()):
                async with self.locks.hold(alias) if alias is not None else contextlib.nullcontext():
                    await self.engine_settled.wait()
                    yield trace
            outcome = "done"
        except HotswapError as error:
            outcome = error.code
            trace["reason"] = str(error)[:_MAX_REASON_CHARACTERS]
            raise
        finally:
            self._busy -= 1
            if self._busy == 0:
                self._quiet.set()
            logger.info("%s %s by %s: %s", action, alias or "", actor, outcome)
            digest = trace.pop("digest", None)
            self._events.note(
                Event(actor, action, outcome, alias, str(digest) if digest else None, dict(trace))
            )

    @property
    def busy(self) -> int:
        """Verbs that are running."""
        return self._busy

    @property
    def closing(self) -> bool:
        """Whether no more verbs are taken."""
        return self._closing

    def check_open(self) -> None:
        """Raises DrainingError once no more verbs are taken."""
        if self._closing:
            raise DrainingError(
                "the server is shutting down; try again on its successor",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )

    def refuse(self) -> None:
        """Take no more verbs; running ones go on."""
        self._closing = True

    async def wait_quiet(self) -> None:
        """Return when no verb runs."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Take no more verbs; wait for running ones and their events."""
        self.refuse()
        await self._quiet.wait()
        await self._events.flush()
