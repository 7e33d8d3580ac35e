"""One load, from a folder to a name that answers; whatever fails on the way leaves what was live serving."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from adapters.errors import AdapterCheckError, AdapterError
from adapters.name import AdapterVersion
from adapters.probe import Probe, read_probe
from adapters.registry.records import NameRecord, NewVersion
from bases.errors import HotswapError
from serve.engine.protocol import AdapterHandle
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.bring_up import BringUp
from serve.lifecycle.desired import DesiredState, check_expected
from serve.lifecycle.housekeeping import Housekeeping
from serve.lifecycle.outcomes import LoadOutcome
from serve.lifecycle.reconcile import Reconciler
from serve.lifecycle.retirement import Retirement
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.state import AdapterState
from serve.lifecycle.verbs import Trace
from serve.lifecycle.version import ManagedVersion, VersionFacts


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """What is to be loaded."""

    alias: str
    folder: Path
    source: str | None  # None: named after the content
    promote: bool  # False: it answers to `name@digest` alone
    expected_live: str | None


class Loading:
    """Loads adapters under names whose locks are held. Belongs to one event loop."""

    def __init__(
        self,
        *,
        board: AdapterBoard,
        desired: DesiredState,
        bring_up: BringUp,
        reconciler: Reconciler,
        retirement: Retirement,
        housekeeping: Housekeeping,
        rules: AdapterRules,
    ) -> None:
        self._board = board
        self._desired = desired
        self._bring_up = bring_up
        self._reconciler = reconciler
        self._retirement = retirement
        self._housekeeping = housekeeping
        self._rules = rules

    async def run(self, order: LoadOrder, trace: Trace) -> LoadOutcome:
        """Raises AdapterCheckError (with every problem), AdapterConflictError, AdapterStoreError, RegistryError,
        LifecycleError, EngineError."""
        started = time.perf_counter()
        record = await self._desired.read(order.alias)
        check_expected(record, order.expected_live)
        report = await self._bring_up.files.check(order.folder)
        check_seconds = time.perf_counter() - started
        report.raise_for_problems()
        facts = report.facts
        if facts.digest is None or facts.rank is None or facts.num_bytes is None:
            raise AdapterCheckError(report)
        version = AdapterVersion(order.alias, facts.digest)
        source = order.source or f"upload:{version.short}"
        trace["digest"], trace["source"] = facts.digest, source
        present = self._board.get(version)
        if (
            present is not None
            and present.state is AdapterState.LIVE
            and self._is_there(record, present, order)
        ):
            await self._reconciler.prove(present)
            return LoadOutcome(present, created=False, replaced=None, report=report)
        # From where it was checked: the store may have the same weights with the probe of a load that failed.
        recorded = await asyncio.to_thread(read_probe, order.folder)
        was_known = record.get(facts.digest) is not None
        managed, fresh = await self._stage(
            version, VersionFacts(facts.rank, facts.num_bytes, source), order.folder, was_known=was_known
        )
        managed.phase_seconds["check"] = round(check_seconds, 4)
        try:
            await self._answer(managed, recorded, order.folder)
            if order.promote:
                record = await self._desired.move(version, left=record.live)
            elif record.live != version.digest:
                record = await self._desired.keep_loaded(version, True)
        except (HotswapError, asyncio.CancelledError) as error:
            await self._take_back(managed, error, fresh=fresh, was_known=was_known)
            raise
        managed.phase_seconds["total"] = round(time.perf_counter() - started, 4)
        trace["phase_seconds"] = dict(managed.phase_seconds)
        self._bring_up.observe(managed)
        left = self._reconciler.settle(record)
        await self._housekeeping.tidy(record)
        replaced = left.version if left is not None and left.version != version else None
        if replaced is not None:
            trace["replaced"] = str(replaced)
        return LoadOutcome(managed, created=True, replaced=replaced, report=report)

    def _is_there(self, record: NameRecord, present: ManagedVersion, order: LoadOrder) -> bool:
        """Whether a live version answers, and should, under the name that is asked for."""
        digest = present.version.digest
        if order.promote:
            return record.live == digest and self._board.behind(order.alias) is present
        kept = record.get(digest)
        return kept is not None and (kept.loaded or record.live == digest)

    async def _stage(
        self, version: AdapterVersion, facts: VersionFacts, folder: Path, *, was_known: bool
    ) -> tuple[ManagedVersion, bool]:
        """A version in store and registry: checked and fresh, or live (still, or again) and not."""
        await self._reconciler.engine_settled()
        managed = self._board.get(version)
        if managed is not None and await self._is_up(managed):
            if not was_known:  # it is on its way out here: another gateway has unloaded the name
                await self._keep(version, facts, folder)
            return managed, False
        managed = self._bring_up.manage(version, facts, folder)
        try:
            with managed.timed("store"):
                await self._bring_up.files.hold(managed)
                path = await self._keep(version, facts, folder)
        except (HotswapError, asyncio.CancelledError) as error:
            managed.fail(error)
            if not was_known:
                await self._forget(version)
            raise
        managed.handle = AdapterHandle(str(version), managed.handle.engine_id, path)
        managed.advance(AdapterState.CHECKED)
        return managed, True

    async def _is_up(self, managed: ManagedVersion) -> bool:
        if managed.state is AdapterState.DRAINING:
            return await self._retirement.revive(managed)
        return managed.state is AdapterState.LIVE

    async def _keep(self, version: AdapterVersion, facts: VersionFacts, folder: Path) -> Path:
        """Have a version in store and registry; returns its folder in the store."""
        path = await self._bring_up.files.publish(folder, version.digest)
        fingerprint = self._rules.target.fingerprint
        await self._desired.add(NewVersion(version, facts.rank, facts.num_bytes, fingerprint, facts.source))
        return path

    async def _answer(self, managed: ManagedVersion, recorded: Probe | None, folder: Path) -> None:
        """Let a staged version answer."""
        if managed.state is AdapterState.CHECKED:
            await self._bring_up.bring_up(managed, recorded)
            await self._bring_up.files.renew(folder, managed.version.digest)
        else:
            await self._reconciler.prove(managed)

    async def _take_back(
        self, managed: ManagedVersion, error: BaseException, *, fresh: bool, was_known: bool
    ) -> None:
        """Undo a load that failed before its alias moved."""
        version = managed.version
        if managed.state is AdapterState.LIVE and (managed.in_flight or not fresh):
            # It was there before, or somebody named this very version and is being answered by it.
            self._reconciler.settle(self._desired.get(version.name))
            return
        if managed.state is not AdapterState.FAILED:
            await self._bring_up.give_up(managed, error)
        if not was_known:
            await self._forget(version)

    async def _forget(self, version: AdapterVersion) -> None:
        """Keep nothing of a version that never answered."""
        try:
            await asyncio.shield(self._drop(version))
        except AdapterError:  # the load's own error says more
            return

    async def _drop(self, version: AdapterVersion) -> None:
        await self._desired.remove(version)
        await self._housekeeping.drop_files(version.digest)
