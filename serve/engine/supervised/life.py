"""One life of the engine: from a start to the death that follows it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from serve.engine.protocol import AdapterHandle, MortalEngine
from serve.engine.supervised.watchdog import Ending, Watchdog, WatchRules
from serve.errors import EngineDeadError, EngineNotReadyError

logger = logging.getLogger("hotswap.engine")

T = TypeVar("T")


class EngineLife:
    """A started engine, the adapters it was given, and its watchdog."""

    def __init__(self, engine: MortalEngine, rules: WatchRules) -> None:
        self.engine = engine
        self.adapters: dict[str, AdapterHandle] = {}  # by engine name
        self.refused: set[str] = set()  # engine names that it could not take, or had to give back
        self.watchdog = Watchdog(engine, rules)
        self._watch = asyncio.create_task(self.watchdog.run(), name="engine watchdog")

    @property
    def over(self) -> bool:
        """True once it was found dead or hanging, by its watchdog or by a request."""
        return self._watch.done() or self.watchdog.alarmed

    def check(self) -> None:
        """Raises EngineDeadError once it is over."""
        if self.over:
            raise EngineDeadError("the engine is gone")

    async def wait_over(self) -> Ending:
        """Return when the engine is dead or has stood still for too long."""
        return await asyncio.shield(self._watch)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a call on the engine that its death would leave unanswered. Raises EngineDeadError."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self._watch}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise EngineDeadError("the engine is gone; the call was not completed")
        except EngineDeadError:
            self.watchdog.alarm()
            raise
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
                if not task.cancelled():
                    task.exception()

    async def load(self, adapter: AdapterHandle) -> None:
        """Give it an adapter. Raises LifecycleError, EngineDeadError."""
        self.refused.discard(adapter.name)
        try:
            with self.watchdog.task():
                await self.call(self.engine.load_adapter(adapter))
        except BaseException:
            self.refused.add(adapter.name)
            raise
        self.adapters[adapter.name] = adapter

    async def unload(self, adapter: AdapterHandle, *, refused: bool) -> None:
        """Take an adapter from it; if it dies meanwhile the adapter is gone as well. Raises UnloadFailedError.

        `refused`: it did not do what it should, and is not to answer in this life.
        """
        if self.adapters.pop(adapter.name, None) is not None and refused:
            self.refused.add(adapter.name)
        with contextlib.suppress(EngineDeadError):
            await self.call(self.engine.unload_adapter(adapter))

    async def handle(self, name: str, known: AdapterHandle | None) -> AdapterHandle | None:
        """The handle under which this life has a version; None: the engine reads it when it is first used.

        `known` was given to an earlier life. A version that draining requests alone still want is not among
        those that are brought back: it is given to this life now.
        Raises EngineNotReadyError when this life refused it, LifecycleError, EngineDeadError.
        """
        if name in self.refused:
            raise EngineNotReadyError(f"adapter {name} did not come back with the restarted engine")
        if name not in self.adapters and known is not None:
            await self.load(known)
        return self.adapters.get(name)

    async def end(self) -> None:
        """Make sure that nothing of it is left."""
        self._watch.cancel()
        try:
            await self.engine.kill()
        except (
            Exception
        ):  # the background boundary: a corpse that cannot be buried must not stop its successor
            logger.exception("what was left of the engine could not be ended cleanly")

    async def close(self) -> None:
        """End it in good order. Idempotent."""
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({self._watch})
        await self.engine.stop()
