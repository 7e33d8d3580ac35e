"""Versions on their way out: drained by their in-flight count, unloaded, and the engine asked whether it did."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from adapters.name import AdapterVersion
from bases.errors import HotswapError
from serve.engine.protocol import Engine
from serve.errors import EngineDeadError, EngineNotReadyError, LifecycleError, RequestAbortedError
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.state import AdapterState
from serve.lifecycle.version import ManagedVersion
from serve.running import RunningRequests

logger = logging.getLogger("hotswap.adapters")

# After the drain limit the remaining requests are ended; this is how long their tasks may take to notice.
_ABORT_SECONDS = 10.0


class Retirement:
    """Drains versions in the background. Belongs to one event loop."""

    def __init__(
        self,
        engine: Engine,
        board: AdapterBoard,
        running: RunningRequests,
        *,
        on_gone: Callable[[ManagedVersion], None] = lambda _: None,
    ) -> None:
        """`on_gone` is told of each version that drained and that the engine holds no more."""
        self._engine = engine
        self._board = board
        self._running = running
        self._on_gone = on_gone
        self._tasks: dict[ManagedVersion, asyncio.Task[None]] = {}

    def begin(self, managed: ManagedVersion) -> None:
        """Let a live version drain, and unload it when its last request ended."""
        managed.advance(AdapterState.DRAINING)
        self._tasks[managed] = asyncio.create_task(self._finish(managed), name=f"drain {managed.version}")

    async def revive(self, managed: ManagedVersion) -> bool:
        """Make a draining version live again. False when the engine was already forgetting it; then it is gone."""
        if managed.in_flight:
            self._tasks.pop(managed).cancel()
            managed.advance(AdapterState.LIVE, "wanted again before it had drained")
            return True
        await asyncio.wait({self._tasks[managed]})
        return False

    async def drain(self, alias: str, limit_seconds: float, version: AdapterVersion | None = None) -> None:
        """Wait until all retired versions of a name (or one) are gone; at the limit end the requests on them.

        Raises LifecycleError when one is in use even then.
        """
        draining = {
            managed: task
            for managed, task in self._tasks.items()
            if managed.version.name == alias and version in (None, managed.version)
        }
        if not draining:
            return
        _, unfinished = await asyncio.wait(draining.values(), timeout=limit_seconds)
        if not unfinished:
            return
        for managed, task in draining.items():
            if task in unfinished:
                cause = RequestAbortedError(
                    f"adapter {managed.version} was unloaded before this answer was complete "
                    f"(drain limit {limit_seconds:g} s)"
                )
                count = self._running.abort_version(str(managed.version), cause)
                logger.warning("adapter %s: %d requests ended at the drain limit", managed.version, count)
        _, unfinished = await asyncio.wait(unfinished, timeout=_ABORT_SECONDS)
        if unfinished:
            raise LifecycleError(
                f"adapter {alias!r} takes no new requests, but is still in use after the drain limit of "
                f"{limit_seconds:g} s; it is unloaded when the last one ends"
            )

    async def close(self) -> None:
        """Stop waiting; the engine ends with its adapters."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _finish(self, managed: ManagedVersion) -> None:
        try:
            with managed.timed("retire"):
                await managed.wait_idle()
                await self._engine.unload_adapter(managed.handle)
        except (EngineDeadError, EngineNotReadyError):
            self._leave(managed)  # what it held went with it
        except HotswapError as error:  # the background boundary: the reason stays with the version
            managed.fail(error)
        else:
            self._leave(managed)
        finally:
            if self._tasks.get(managed) is asyncio.current_task():
                del self._tasks[managed]

    def _leave(self, managed: ManagedVersion) -> None:
        self._board.forget(managed)
        managed.advance(AdapterState.UNLOADED)
        self._on_gone(managed)
