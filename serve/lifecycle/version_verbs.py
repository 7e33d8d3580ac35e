"""The verbs on versions that are known: which one a name means, who shares its requests, what stays loaded.

A version is loaded while its alias means it, a traffic plan names it, it is pinned, or it was asked for without an
alias (`promote=False`, `prefetch`), which holds until an alias has come and gone. Everything else of a name stays
in store and registry to go back to, the newest few. When an alias moves, the traffic plan beside it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from adapters.errors import AdapterConflictError
from adapters.name import AdapterVersion, parse_alias
from adapters.registry.records import NameRecord, VersionRecord
from bases.errors import HotswapError
from serve.engine.protocol import Engine
from serve.errors import AdapterMissingError, EngineDeadError, EngineNotReadyError
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.desired import DesiredState, check_expected, find_version, read_plan
from serve.lifecycle.housekeeping import Housekeeping
from serve.lifecycle.outcomes import MoveOutcome
from serve.lifecycle.reconcile import Reconciler
from serve.lifecycle.retirement import Retirement
from serve.lifecycle.traffic import TrafficPlan
from serve.lifecycle.verbs import Trace, Verbs
from serve.lifecycle.version import ManagedVersion


class VersionVerbs:
    """Belongs to one event loop. Besides what each names, every verb raises AdapterNameError, RegistryError and
    DrainingError. A `version` is written `3f2a91c0`, as a longer digest, or `risk@3f2a91c0`."""

    def __init__(
        self,
        *,
        engine: Engine,
        board: AdapterBoard,
        desired: DesiredState,
        verbs: Verbs,
        reconciler: Reconciler,
        retirement: Retirement,
        housekeeping: Housekeeping,
        drain_seconds: float,
    ) -> None:
        """`drain_seconds` is the limit of an unload that names none."""
        self.board = board
        self._engine = engine
        self._desired = desired
        self._verbs = verbs
        self._reconciler = reconciler
        self._retirement = retirement
        self._housekeeping = housekeeping
        self._drain_seconds = drain_seconds

    async def promote(
        self, name: str, version: str, *, actor: str, expected_live: str | None = None
    ) -> MoveOutcome:
        """Let the alias mean `version`, which is brought up and probed first. Idempotent.

        Raises AdapterMissingError, AdapterConflictError, LifecycleError, EngineError.
        """
        async with self._on_version(name, "promote", actor) as (record, trace):
            kept = find_version(record, version)
            check_expected(record, expected_live)
            return await self._move(record, kept, trace)

    async def rollback(self, name: str, *, actor: str) -> MoveOutcome:
        """Let the alias mean what it meant before; twice is there and back.

        Raises AdapterMissingError, AdapterConflictError when there is nothing to go back to, and as `promote`.
        """
        async with self._on_version(name, "rollback", actor) as (record, trace):
            kept = record.get(record.previous)
            if kept is None or record.live is None:
                raise AdapterConflictError(
                    f"Adapter {record.name!r} has no version to go back to. Promote the one that is wanted."
                )
            return await self._move(record, kept, trace)

    async def set_traffic(
        self, name: str, plan: TrafficPlan, *, actor: str, reason: str | None = None
    ) -> TrafficPlan:
        """Share the requests of `name`; what the plan names is brought up first. Returns it with whole digests.

        Raises AdapterMissingError, AdapterConflictError, LifecycleError, EngineError.
        """
        async with self._on_version(name, "set_traffic", actor) as (record, trace):
            stable = record.get(record.live)
            if stable is None:
                raise AdapterConflictError(
                    f"Nothing is live as {record.name!r}, so there is nothing to share. Promote a version first."
                )
            whole = {text: find_version(record, text) for text in sorted(plan.versions)}
            if stable in whole.values():
                raise AdapterConflictError(
                    f"Version {stable.version} is what {record.name!r} means: it gets what the others leave. "
                    "Name other versions."
                )
            plan = plan.model_copy(
                update={
                    field: {whole[text].version.digest: share for text, share in getattr(plan, field).items()}
                    for field in ("shares", "shadow")
                }
            )
            trace["plan"] = plan.model_dump(mode="json")
            if reason is not None:
                trace["reason"] = reason
            for kept in whole.values():
                await self._reconciler.raise_up(kept)
            await self._settle(await self._desired.plan(record.name, plan))
            return plan

    async def clear_traffic(self, name: str, *, actor: str, reason: str | None = None) -> TrafficPlan | None:
        """The stable version alone answers to `name`; returns the plan that there was. Idempotent.

        Raises AdapterMissingError.
        """
        async with self._on_version(name, "clear_traffic", actor) as (record, trace):
            before = self.board.traffic(record.name)
            if reason is not None:
                trace["reason"] = reason
            await self._settle(await self._desired.plan(record.name, None))
            return before

    async def pin(self, name: str, version: str, *, actor: str) -> ManagedVersion:
        """Keep a version loaded, and answering to `name@digest`, whatever the alias means. Idempotent.

        Raises AdapterMissingError, LifecycleError, EngineError.
        """
        async with self._on_version(name, "pin", actor) as (record, trace):
            kept = find_version(record, version)
            trace["digest"] = kept.version.digest
            managed = await self._reconciler.raise_up(kept)
            await self._settle(await self._desired.pin(kept.version, True))
            return managed

    async def unpin(self, name: str, version: str, *, actor: str) -> bool:
        """Take a pin back; False when there was none. Raises AdapterMissingError."""
        async with self._on_version(name, "unpin", actor) as (record, trace):
            kept = find_version(record, version)
            trace["digest"] = kept.version.digest
            await self._settle(await self._desired.pin(kept.version, False))
            return kept.pinned

    async def prefetch(self, name: str, version: str, *, actor: str) -> ManagedVersion:
        """Bring a version into memory, probed, without moving the alias. Idempotent.

        Raises AdapterMissingError, LifecycleError, EngineError.
        """
        async with self._on_version(name, "prefetch", actor) as (record, trace):
            kept = find_version(record, version)
            trace["digest"] = kept.version.digest
            managed = await self._reconciler.raise_up(kept)
            if kept.version.digest != record.live:
                await self._settle(await self._desired.keep_loaded(kept.version, True))
            return managed

    async def unload_version(
        self, name: str, version: str, *, actor: str, drain_seconds: float | None = None
    ) -> AdapterVersion:
        """Take one version out of the engine; it stays in store and registry. Idempotent.

        Raises AdapterMissingError, LifecycleError, UnloadFailedError, and AdapterConflictError for a version that
        an alias, a traffic plan or a pin holds.
        """
        async with self._on_version(name, "unload_version", actor) as (record, trace):
            kept = find_version(record, version)
            trace["digest"] = kept.version.digest
            _check_free(record, kept)
            record = await self._desired.keep_loaded(kept.version, False)
            self._reconciler.settle(record)
            await self._retirement.drain(record.name, self._limit(drain_seconds), kept.version)
            left = self.board.get(kept.version)
            if left is not None:
                await self._take_out([left])
            await self._settle(record)
            return kept.version

    async def unload(
        self, name: str, *, actor: str, drain_seconds: float | None = None
    ) -> list[AdapterVersion]:
        """Take `name` away: no new request finds it, running ones finish (or end at the limit), it is unloaded.

        Returns the versions that went. Raises AdapterMissingError, LifecycleError, UnloadFailedError; the registry
        has forgotten the name by then, and files go when their last user has.
        """
        alias = parse_alias(name)
        async with self._verbs.run(alias, "unload", actor):
            record = await self._desired.read(alias)
            if not record.known and not self.board.versions(alias):
                raise AdapterMissingError(f"no adapter is called {alias!r}; GET /admin/adapters lists them")
            gone = await self._desired.forget(alias)
            self._reconciler.settle(NameRecord(alias))
            self._reconciler.note_names()
            await self._retirement.drain(alias, self._limit(drain_seconds))
            leftovers = self.board.versions(alias)
            await self._take_out(leftovers)
            for version in {*gone, *(leftover.version for leftover in leftovers)}:
                await self._housekeeping.drop_files(version.digest)
            self._reconciler.note_names()
            return gone

    @contextlib.asynccontextmanager
    async def _on_version(
        self, name: str, action: str, actor: str
    ) -> AsyncIterator[tuple[NameRecord, Trace]]:
        """A verb on versions of a known name, with what the registry says of it now.

        One that fails, or is cancelled, leaves the name as the registry has it.
        """
        alias = parse_alias(name)
        async with self._verbs.run(alias, action, actor) as trace:
            record = await self._desired.read(alias)
            if not record.known:
                raise AdapterMissingError(f"no adapter is called {alias!r}; GET /admin/adapters lists them")
            try:
                yield record, trace
            except (HotswapError, asyncio.CancelledError):
                self._reconciler.settle(self._desired.get(alias))  # what came up for it is not wanted
                raise

    async def _move(self, record: NameRecord, kept: VersionRecord, trace: Trace) -> MoveOutcome:
        trace["digest"] = kept.version.digest
        managed = await self._reconciler.raise_up(kept)
        before = self.board.behind(record.name)
        if kept.version.digest == record.live and before is managed:
            return MoveOutcome(managed, moved=False, left=None)
        await self._settle(await self._desired.move(kept.version, left=record.live))
        left = record.get(record.live)
        if left is not None:
            trace["replaced"] = str(left.version)
        return MoveOutcome(managed, moved=True, left=left.version if left is not None else None)

    async def _settle(self, record: NameRecord) -> None:
        self._reconciler.settle(record)
        await self._housekeeping.tidy(record)
        self._reconciler.note_names()

    async def _take_out(self, leftovers: list[ManagedVersion]) -> None:
        """Unload what did not drain because it had failed. Raises UnloadFailedError."""
        with contextlib.suppress(EngineDeadError, EngineNotReadyError):  # what it held went with it
            resident = await self._engine.resident_adapters()
            for leftover in leftovers:
                if leftover.handle.engine_id in resident:
                    await self._engine.unload_adapter(leftover.handle)
        for leftover in leftovers:
            self.board.forget(leftover)
        self._reconciler.note_names()

    def _limit(self, drain_seconds: float | None) -> float:
        return self._drain_seconds if drain_seconds is None else drain_seconds


def _check_free(record: NameRecord, kept: VersionRecord) -> None:
    version, digest = kept.version, kept.version.digest
    plan = read_plan(record)
    if digest == record.live:
        held = f"is what {record.name!r} means. Promote another version first, or unload the name"
    elif plan is not None and digest in plan.versions:
        held = f"has a share of the requests for {record.name!r}. Clear the traffic first"
    elif kept.pinned:
        held = "is pinned. Unpin it first"
    else:
        return
    raise AdapterConflictError(f"Version {version} {held}.")
