"""From files to a version that answers: check, keep, load, probe; and the way back when that fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from adapters.name import AdapterVersion
from adapters.probe import Probe, read_probe
from adapters.registry.records import Event, VersionRecord
from adapters.store.store import AdapterStore
from bases.errors import HotswapError
from serve.engine.protocol import AdapterHandle, Engine
from serve.errors import EngineDeadError, EngineNotReadyError, LifecycleError, ProbeFailedError
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.kept_files import KeptFiles
from serve.lifecycle.probe import AdapterProbe
from serve.lifecycle.probe_memory import ProbeMemory
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.state import AdapterState
from serve.lifecycle.strength import Strengths
from serve.lifecycle.verdict import ProbeResult
from serve.lifecycle.version import ManagedVersion, VersionFacts
from serve.observability.events import GATEWAY_ACTOR, STATE_ACTION, EventLog
from serve.observability.metrics import GatewayMetrics

logger = logging.getLogger("hotswap.adapters")

MAX_FAILURES_LISTED = 8  # of one name, in memory


class BringUp:
    """Brings versions into one engine. Belongs to one event loop."""

    def __init__(
        self,
        *,
        engine: Engine,
        board: AdapterBoard,
        files: KeptFiles,
        store: AdapterStore,
        metrics: GatewayMetrics,
        events: EventLog,
        rules: AdapterRules,
        hold: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.engine = engine
        self.epoch = 0  # engines until now; what was loaded into another one is gone
        self.files = files
        self._board = board
        self._store = store
        self._metrics = metrics
        self._events = events
        self._rules = rules
        self.nowhere = rules.root  # stands where a version has no folder of its own yet
        self._hold = hold
        self._engine_ids = itertools.count(1)
        self._memory = ProbeMemory()
        self._probe = self._probe_on(engine)

    def begin_epoch(self) -> None:
        """The engine is another one from now on: what was loaded into the last one, or learned of it, is gone."""
        self.epoch += 1
        self._memory = ProbeMemory()
        self._probe = self._probe_on(self.engine)

    def _probe_on(self, engine: Engine) -> AdapterProbe:
        strengths = Strengths(engine, self._store, lambda: next(self._engine_ids))
        return AdapterProbe(
            engine,
            hold=self._hold,
            at_strength=strengths.at,
            rounded=self._rules.target.rounded,
            memory=self._memory,
        )

    def manage(self, version: AdapterVersion, facts: VersionFacts, path: Path) -> ManagedVersion:
        """A version on the board, registered."""
        handle = AdapterHandle(str(version), next(self._engine_ids), path)
        managed = ManagedVersion(version, handle, facts, self._stepped)
        self._board.add(managed)
        self._note(managed)
        self.count_states()
        return managed

    def manage_unread(self, record: VersionRecord, path: Path) -> ManagedVersion:
        """A version that answers and that nobody has read: the engine reads it when it is first used."""
        version = record.version
        handle = AdapterHandle(str(version), next(self._engine_ids), path)
        managed = ManagedVersion(version, handle, _facts(record), lambda *_: None)
        for state in (AdapterState.CHECKED, AdapterState.LOADING):
            managed.advance(state)
        managed.advance(AdapterState.LIVE, "read by the engine when it is first used")
        managed.on_step = self._stepped
        self._board.add(managed)
        return managed

    async def from_store(self, record: VersionRecord) -> ManagedVersion:
        """Bring a registered version up, whatever it was before. Raises HotswapError; it is then failed."""
        managed = self.manage(record.version, _facts(record), self._rules.root)
        try:
            with managed.timed("total"):
                with managed.timed("verify"):
                    await self.files.hold(managed)
                    path = await self.files.find(record)
                managed.handle = AdapterHandle(str(record.version), managed.handle.engine_id, path)
                managed.advance(AdapterState.CHECKED)
                await self.bring_up(managed, await asyncio.to_thread(read_probe, path))
        except (HotswapError, asyncio.CancelledError) as error:
            await self.give_up(managed, error)
            raise
        self.observe(managed)
        return managed

    def observe(self, managed: ManagedVersion) -> None:
        """Count the seconds of each phase of a version that is up."""
        for phase, seconds in managed.phase_seconds.items():
            self._metrics.adapter_load_seconds.labels(phase).observe(seconds)

    async def bring_up(self, managed: ManagedVersion, recorded: Probe | None) -> None:
        """Load a checked version and ask it. Raises LifecycleError, ProbeFailedError, EngineError."""
        epoch = self.epoch
        managed.advance(AdapterState.LOADING)
        with managed.timed("load"):
            await self.engine.load_adapter(managed.handle)
        if self._rules.probe:
            managed.advance(AdapterState.PROBING)
            with managed.timed("probe"):
                await self.ask(managed, recorded)
        self._check_epoch(managed, epoch)
        managed.proven = True
        managed.advance(AdapterState.LIVE)

    async def return_to(self, engine: Engine, managed: ManagedVersion, record: VersionRecord | None) -> None:
        """Bring a version that was live into a fresh engine, under the id that it had.

        Raises HotswapError; the state is then where it stopped.
        """
        with managed.timed("verify"):
            if record is not None:
                path = await self.files.find(record)
            elif await self.files.verify(managed.version.digest):
                path = await asyncio.to_thread(self._store.path, managed.version.digest)
            else:
                raise LifecycleError("its files in the store are gone or damaged; load it again")
        managed.handle = AdapterHandle(managed.handle.name, managed.handle.engine_id, path)
        with managed.timed("load"):
            await engine.load_adapter(managed.handle)
        if self._rules.probe:
            if managed.state is AdapterState.LOADING:
                managed.advance(AdapterState.PROBING)
            with managed.timed("probe"):
                await self.ask(managed, await asyncio.to_thread(read_probe, path), self._probe_on(engine))
        managed.proven = True

    async def prove(self, managed: ManagedVersion, record: VersionRecord) -> None:
        """Read, verify and ask a version that answers unread.

        Raises EngineDeadError, EngineNotReadyError; any other HotswapError makes it failed.
        """
        epoch = self.epoch
        try:
            with managed.timed("verify"):
                path = await self.files.find(record)
            with managed.timed("load"):
                await self.engine.load_adapter(managed.handle)
            if self._rules.probe:
                with managed.timed("probe"):
                    await self.ask(managed, await asyncio.to_thread(read_probe, path))
            self._check_epoch(managed, epoch)
        except (EngineDeadError, EngineNotReadyError):
            raise  # nothing is wrong with the version, and nothing was proven
        except HotswapError as error:
            await self.give_up(managed, error)
            raise
        managed.proven, managed.reason = True, None

    async def ask(
        self, managed: ManagedVersion, recorded: Probe | None, probe: AdapterProbe | None = None
    ) -> ProbeResult:
        """Probe a loaded version. Raises ProbeFailedError, EngineError."""
        probe = probe or self._probe
        kind = "effect" if recorded is None else "replay"
        try:
            if recorded is None:
                result = await probe.effect(managed.handle)
            else:
                result = await probe.replay(managed.handle, recorded, digest=managed.version.digest)
        except ProbeFailedError as error:
            self._metrics.adapter_probes.labels(kind, error.cause).inc()
            logger.warning("adapter %s refused by its probe (%s): %s", managed.version, error.cause, error)
            raise
        managed.probe = result
        if result.difference is not None:
            self._metrics.adapter_probe_difference.observe(result.difference)
        self._metrics.adapter_probes.labels(kind, "passed").inc()
        logger.info("adapter %s probed: %s", managed.version, result.describe())
        return result

    async def give_up(self, managed: ManagedVersion, error: BaseException) -> None:
        """Mark a version as failed and leave nothing of it in the engine."""
        was_loaded = managed.state in (AdapterState.LOADING, AdapterState.PROBING, AdapterState.LIVE)
        managed.fail(error)
        failed = [m for m in self._board.versions(managed.version.name) if m.state is AdapterState.FAILED]
        for old in failed[:-MAX_FAILURES_LISTED]:
            if old is not self._board.behind(old.version.name):
                self._board.forget(old)
        if was_loaded:
            try:
                await asyncio.shield(self.engine.unload_adapter(managed.handle))
            except HotswapError as second:
                logger.error("adapter %s could not be taken out of the engine: %s", managed.version, second)

    def count_states(self) -> None:
        """Set the gauge of versions by state."""
        for state in AdapterState:
            self._metrics.adapters.labels(str(state)).set(self._board.count(state))

    def _check_epoch(self, managed: ManagedVersion, epoch: int) -> None:
        if self.epoch != epoch:
            raise EngineNotReadyError(
                f"the engine was started again while {managed.version} was being loaded; load it again"
            )

    def _stepped(self, managed: ManagedVersion, came_from: AdapterState) -> None:
        reason = f" ({managed.reason})" if managed.reason else ""
        logger.info("adapter %s: %s -> %s%s", managed.version, came_from, managed.state, reason)
        self._metrics.adapter_transitions.labels(str(managed.state)).inc()
        self._board.stepped(managed, came_from)
        if managed.state in (AdapterState.FAILED, AdapterState.UNLOADED):
            self.files.let_go(managed)
        self._note(managed)
        self.count_states()

    def _note(self, managed: ManagedVersion) -> None:
        detail = {"reason": managed.reason} if managed.reason else {}
        version = managed.version
        self._events.note(
            Event(GATEWAY_ACTOR, STATE_ACTION, str(managed.state), version.name, version.digest, detail)
        )


def _facts(record: VersionRecord) -> VersionFacts:
    return VersionFacts(record.rank, record.num_bytes, record.source)
