"""What every verb on adapters has in common: one at a time on a name, an end with a cause, and a written trace."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.registry.records import Event
from adapters.registry.registry import Registry
from bases.errors import HotswapError
from serve.errors import DrainingError
from serve.running import RunningRequests

logger = logging.getLogger("hotswap.adapters")

_RETRY_AFTER_SECONDS = 5


class Verbs:
    """Runs verbs. Belongs to one event loop; events are written in threads."""

    def __init__(self, registry: Registry, running: RunningRequests) -> None:
        self._registry = registry
        self._running = running
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._events: set[asyncio.Future[None]] = set()  # being written down
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closing = False

    @asynccontextmanager
    async def run(self, alias: str, action: str, actor: str) -> AsyncIterator[dict[str, str]]:
        """One verb; what it puts into the dictionary goes into its event. Raises DrainingError."""
        self.check_open()
        self._busy += 1
        self._quiet.clear()
        event: dict[str, str] = {}
        outcome = "cancelled"
        try:
            # Tracked, so that a shutdown can end a verb as it ends a request: with a cause.
            with self._running.track(f"{action} {alias}"):
                async with self._locks[alias]:
                    yield event
            outcome = "done"
        except HotswapError as error:
            outcome = error.code
            raise
        finally:
            self._busy -= 1
            if self._busy == 0:
                self._quiet.set()
            logger.info("%s %s by %s: %s", action, alias, actor, outcome)
            self._note(Event(actor, action, outcome, alias, event.pop("digest", None), dict(event)))

    @property
    def busy(self) -> int:
        """Verbs that are running."""
        return self._busy

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
        await asyncio.gather(*self._events)

    def _note(self, event: Event) -> None:
        def write() -> None:
            try:
                self._registry.append_event(event)
            except HotswapError as error:
                logger.error("the event %s %s was not written down: %s", event.action, event.name, error)

        written = asyncio.get_running_loop().run_in_executor(None, write)
        self._events.add(written)
        written.add_done_callback(self._events.discard)
