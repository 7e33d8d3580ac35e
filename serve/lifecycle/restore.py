"""Gives a fresh engine the adapters that its predecessor had: the same versions, under the same ids, proven again.

Whoever holds a version goes on holding it: a request that had sent nothing yet can be given to the new engine as it
is. Verbs wait meanwhile; what one was loading into the old engine is gone, and that verb says so.
"""

from __future__ import annotations

import logging
import time

from bases.errors import HotswapError
from serve.engine.protocol import Engine
from serve.errors import EngineDeadError, EngineNotReadyError, RequestAbortedError
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.bring_up import BringUp
from serve.lifecycle.desired import DesiredState
from serve.lifecycle.reconcile import Reconciler
from serve.lifecycle.state import AdapterState
from serve.lifecycle.verbs import Verbs
from serve.lifecycle.version import ManagedVersion
from serve.running import RunningRequests

logger = logging.getLogger("hotswap.adapters")


class Restoration:
    """Belongs to one event loop."""

    def __init__(
        self,
        *,
        board: AdapterBoard,
        desired: DesiredState,
        bring_up: BringUp,
        reconciler: Reconciler,
        verbs: Verbs,
        running: RunningRequests,
        max_resident: int,
    ) -> None:
        self._board = board
        self._desired = desired
        self._bring_up = bring_up
        self._reconciler = reconciler
        self._verbs = verbs
        self._running = running
        self._max_resident = max_resident

    async def run(self, engine: Engine) -> None:
        """Bring back what was live into `engine`. A version that does not come back is failed, with its reason.

        Raises EngineDeadError, EngineNotReadyError when this engine dies as well; the next one gets them all.
        """
        started = time.perf_counter()
        self._bring_up.begin_epoch()
        self._verbs.engine_settled.clear()
        returning = self._begin()
        for managed in returning[: self._max_resident]:
            await self._bring_back(engine, managed)
        for managed in returning[self._max_resident :]:
            managed.proven = False
            self._arrive(managed, "read by the engine when it is first used")
        for name in self._board.names():
            self._reconciler.settle(self._desired.get(name))
        self._verbs.engine_settled.set()
        failed = sum(managed.state is AdapterState.FAILED for managed in returning)
        logger.info(
            "%d of %d adapter versions are back in the engine after %.1f s",
            len(returning) - failed,
            len(returning),
            time.perf_counter() - started,
        )

    def _begin(self) -> list[ManagedVersion]:
        """What has to come back: what is used most first."""
        returning = []
        for managed in self._board.versions():
            if managed.state is AdapterState.LIVE and managed.proven:
                managed.returning = True
                managed.advance(AdapterState.LOADING, "the engine was started again")
            elif managed.returning and managed.state is AdapterState.PROBING:  # its last engine died as well
                managed.advance(AdapterState.LOADING, "the engine was started again")
            drains = managed.state is AdapterState.DRAINING and managed.in_flight
            if managed.returning or drains:
                managed.phase_seconds.clear()
                returning.append(managed)
        returning.sort(key=lambda managed: (managed.in_flight, managed.last_used or 0.0), reverse=True)
        return returning

    async def _bring_back(self, engine: Engine, managed: ManagedVersion) -> None:
        version = managed.version
        if self._board.get(version) is not managed:
            return  # it drained while others came back, and its files may be gone by now
        record = self._desired.get(version.name).get(version.digest)
        try:
            await self._bring_up.return_to(engine, managed, record)
        except (EngineDeadError, EngineNotReadyError):
            raise
        except HotswapError as error:
            if self._board.get(version) is not managed:
                return
            logger.error("adapter %s does not come back: %s", version, error)
            managed.returning = False
            managed.fail(error)
            cause = RequestAbortedError(f"adapter {version} did not come back with a new engine: {error}")
            self._running.abort_version(str(version), cause)
            self._reconciler.retry_later(version.name)
            await self._take_out(engine, managed)
            return
        self._arrive(managed)
        if self._board.get(version) is not managed:  # it drained meanwhile
            await self._take_out(engine, managed)

    def _arrive(self, managed: ManagedVersion, reason: str | None = None) -> None:
        managed.returning = False
        if managed.state is not AdapterState.DRAINING and self._board.get(managed.version) is managed:
            managed.advance(AdapterState.LIVE, reason)

    async def _take_out(self, engine: Engine, managed: ManagedVersion) -> None:
        try:
            await engine.unload_adapter(managed.handle)
        except (EngineDeadError, EngineNotReadyError):
            raise
        except HotswapError as error:
            logger.error("adapter %s could not be taken out of the engine: %s", managed.version, error)
