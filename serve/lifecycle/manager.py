"""The verbs on adapters, one gateway's side of each: what they ask, in which order, and what they leave behind.

A swap: check, copy into the store, load, probe, write the alias to the registry, move the alias in one step,
let the old version drain, unload it, verify. Any failure before the alias moves leaves the old version serving.

A version is loaded while its alias means it, a traffic plan names it, it is pinned, or it was asked for without an
alias (`promote=False`, `prefetch`), which holds until an alias has come and gone. Everything else of a name stays
in store and registry to go back to, the newest few. When an alias moves, the traffic plan beside it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

from adapters.errors import AdapterConflictError
from adapters.name import AdapterVersion, parse_alias
from adapters.probe import read_probe
from adapters.registry.records import NameRecord, VersionRecord
from adapters.registry.registry import Registry
from adapters.report import CheckReport
from adapters.store import AdapterStore
from bases.errors import HotswapError
from serve.engine.protocol import Engine
from serve.errors import AdapterMissingError, EngineDeadError, EngineNotReadyError
from serve.events import EventLog
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.bring_up import BringUp, OpenSource, local_sources
from serve.lifecycle.desired import DesiredState, check_expected, find_version, read_plan
from serve.lifecycle.housekeeping import Housekeeping
from serve.lifecycle.loading import Loading, LoadOrder
from serve.lifecycle.outcomes import LoadOutcome, MoveOutcome
from serve.lifecycle.reconcile import Reconciler
from serve.lifecycle.restore import Restoration
from serve.lifecycle.retirement import Retirement
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.status import AdapterStatus, describe_name
from serve.lifecycle.traffic import TrafficPlan
from serve.lifecycle.verbs import Trace, Verbs
from serve.lifecycle.verdict import ProbeResult
from serve.lifecycle.version import ManagedVersion
from serve.metrics import GatewayMetrics
from serve.running import RunningRequests


class AdapterManager:
    """All verbs of one gateway. Methods belong to one event loop; disk and database work runs in threads.

    Besides what each names, every verb raises AdapterNameError, RegistryError and DrainingError. A `version` is
    written `3f2a91c0`, as a longer digest, or `risk@3f2a91c0`.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        board: AdapterBoard,
        registry: Registry,
        store: AdapterStore,
        running: RunningRequests,
        metrics: GatewayMetrics,
        rules: AdapterRules,
        events: EventLog | None = None,
        open_source: OpenSource | None = None,
        hold: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`hold` keeps new requests from the engine while it is entered (Admission.hold).

        `open_source` gives the folder that a source names; None: folders below the root alone.
        """
        self.board = board
        self.rules = rules
        self._engine = engine
        self._metrics = metrics
        self._open_source = open_source or local_sources(rules.root)
        events = events or EventLog(registry)
        self._desired = DesiredState(registry)
        self._verbs = Verbs(events, running)
        self._bring_up = BringUp(
            engine=engine,
            board=board,
            store=store,
            metrics=metrics,
            events=events,
            rules=rules,
            open_source=self._open_source,
            hold=hold,
        )
        self._housekeeping = Housekeeping(
            store, self._desired, board, self._bring_up.files, keep_versions=rules.keep_versions
        )
        self._retirement = Retirement(engine, board, running, on_gone=self._left)
        self._reconciler = Reconciler(
            board=board,
            desired=self._desired,
            bring_up=self._bring_up,
            retirement=self._retirement,
            housekeeping=self._housekeeping,
            store=store,
            verbs=self._verbs,
            running=running,
            max_resident=rules.max_resident,
            on_names=self._note_names,
        )
        self._restoration = Restoration(
            board=board,
            desired=self._desired,
            bring_up=self._bring_up,
            reconciler=self._reconciler,
            verbs=self._verbs,
            running=running,
            max_resident=rules.max_resident,
        )
        self._loading = Loading(
            board=board,
            desired=self._desired,
            bring_up=self._bring_up,
            reconciler=self._reconciler,
            retirement=self._retirement,
            housekeeping=self._housekeeping,
            rules=rules,
        )
        self._started = False

    async def converge(self) -> None:
        """Be what the registry wants: at the start everything, later what others changed and what had failed.

        A version that cannot be brought up is listed as failed, with its reason. Raises RegistryError.
        """
        if self._started:
            await self._reconciler.converge()
        else:
            await self._reconciler.start()
            self._started = True

    def follow(self, poll_seconds: float) -> None:
        """From now on take over what other gateways change, looking every so many seconds."""
        self._reconciler.follow(poll_seconds)

    async def restore(self, engine: Engine) -> None:
        """Bring every version back on a fresh engine: the same ones, under the same ids, verified and probed.

        `engine` takes calls that the manager's own may refuse until this returns. Verbs wait meanwhile. Raises
        EngineDeadError, EngineNotReadyError when this engine dies as well: call it again with the next.
        """
        await self._restoration.run(engine)

    async def validate(self, source: str, *, actor: str) -> CheckReport:
        """A dry run: nothing is stored, the engine is not called. Raises AdapterSourceError."""
        async with self._verbs.run(None, "validate", actor) as trace:
            trace["source"] = source
            async with self._open_source(source) as folder:
                return await self._validate(folder, trace)

    async def validate_folder(self, folder: Path, *, actor: str) -> CheckReport:
        """A dry run of what was received into `folder`."""
        async with self._verbs.run(None, "validate", actor) as trace:
            trace["source"] = "upload"
            return await self._validate(folder, trace)

    async def _validate(self, folder: Path, trace: Trace) -> CheckReport:
        report = await self._bring_up.check(folder)
        trace["problems"] = [problem.code for problem in report.problems]
        if report.facts.digest is not None:
            trace["digest"] = report.facts.digest
        return report

    async def load(
        self,
        name: str,
        source: str,
        *,
        actor: str,
        promote: bool = True,
        expected_live: str | None = None,
    ) -> LoadOutcome:
        """Make the adapter in `source` the one that answers to `name`. Idempotent.

        `promote=False` leaves the alias: the version answers to `name@digest`. `expected_live` is the version
        that the alias has to mean now ("none": nothing). Raises AdapterSourceError, AdapterCheckError (with
        every problem), AdapterConflictError, AdapterStoreError, LifecycleError, EngineError; what was live then
        still serves.
        """
        alias = parse_alias(name, base_name=self.board.base_name)
        async with self._verbs.run(alias, "load", actor) as trace:
            trace["source"] = source
            async with self._open_source(source) as folder:
                order = LoadOrder(alias, folder, source, promote, expected_live)
                return await self._loaded(order, trace)

    async def load_folder(
        self,
        name: str,
        folder: Path,
        *,
        actor: str,
        promote: bool = True,
        source: str | None = None,
        expected_live: str | None = None,
    ) -> LoadOutcome:
        """Make the adapter that was received into `folder` the one that answers to `name`; as `load`.

        `source` says where it came from; None: it was sent, and is named after its content. The folder is not
        needed any more when this returns.
        """
        alias = parse_alias(name, base_name=self.board.base_name)
        async with self._verbs.run(alias, "load", actor) as trace:
            trace["source"] = source or "upload"
            return await self._loaded(LoadOrder(alias, folder, source, promote, expected_live), trace)

    async def _loaded(self, order: LoadOrder, trace: Trace) -> LoadOutcome:
        try:
            return await self._loading.run(order, trace)
        finally:
            self._note_names()

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
            self._note_names()
            await self._retirement.drain(alias, self._limit(drain_seconds))
            leftovers = self.board.versions(alias)
            await self._take_out(leftovers)
            for version in {*gone, *(leftover.version for leftover in leftovers)}:
                await self._housekeeping.drop_files(version.digest)
            self._note_names()
            return gone

    async def probe_again(self, managed: ManagedVersion) -> ProbeResult:
        """Ask a loaded version what it was asked when it was loaded. Raises ProbeFailedError, EngineError."""
        recorded = await asyncio.to_thread(read_probe, managed.handle.path)
        return await self._bring_up.ask(managed, recorded)

    def statuses(self) -> list[AdapterStatus]:
        """Desired and actual state of every name, by name."""
        names = sorted({*self._desired.names(), *self.board.names()})
        found = (self.status(name) for name in names)
        return [status for status in found if status is not None]

    def status(self, name: str) -> AdapterStatus | None:
        """Desired and actual state of one name; None when nothing is known of it."""
        return describe_name(self._desired.get(name), self.board)

    def check_open(self) -> None:
        """Raises DrainingError once no more verbs are taken."""
        self._verbs.check_open()

    def refuse(self) -> None:
        """Take no more verbs; running ones go on."""
        self._verbs.refuse()

    async def close(self) -> None:
        """Take no more verbs, wait for running ones and their events, stop waiting for versions that drain."""
        self._verbs.refuse()
        await self._reconciler.close()
        await self._verbs.close()
        await self._retirement.close()
        await self._housekeeping.close()

    @property
    def busy(self) -> int:
        """Verbs that are running."""
        return self._verbs.busy

    async def wait_quiet(self) -> None:
        """Return when no verb runs."""
        await self._verbs.wait_quiet()

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
        self._note_names()

    async def _take_out(self, leftovers: list[ManagedVersion]) -> None:
        """Unload what did not drain because it had failed. Raises UnloadFailedError."""
        with contextlib.suppress(EngineDeadError, EngineNotReadyError):  # what it held went with it
            resident = await self._engine.resident_adapters()
            for leftover in leftovers:
                if leftover.handle.engine_id in resident:
                    await self._engine.unload_adapter(leftover.handle)
        for leftover in leftovers:
            self.board.forget(leftover)
        self._bring_up.count_states()

    def _left(self, managed: ManagedVersion) -> None:
        self._metrics.adapter_load_seconds.labels("retire").observe(managed.phase_seconds["retire"])
        self._housekeeping.left(managed)

    def _limit(self, drain_seconds: float | None) -> float:
        return self.rules.drain_seconds if drain_seconds is None else drain_seconds

    def _note_names(self) -> None:
        self._metrics.known_adapters(self.board.aliases())
        self._bring_up.count_states()


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
