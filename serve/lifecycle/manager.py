"""All verbs on adapters of one gateway: those that bring versions here; those on known ones in version_verbs.py.

A swap: check, copy into the store, load, probe, write the alias to the registry, move the alias in one step,
let the old version drain, unload it, verify. Any failure before the alias moves leaves the old version serving.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from adapters.name import parse_alias
from adapters.probe import read_probe
from adapters.registry.records import NameRecord
from adapters.registry.registry import Registry
from adapters.report import CheckReport
from adapters.store.store import AdapterStore
from serve.engine.protocol import Engine
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.bring_up import BringUp
from serve.lifecycle.desired import DesiredState
from serve.lifecycle.file_work import FileWork
from serve.lifecycle.housekeeping import Housekeeping
from serve.lifecycle.kept_files import KeptFiles, OpenSource, local_sources
from serve.lifecycle.loading import Loading, LoadOrder
from serve.lifecycle.outcomes import LoadOutcome
from serve.lifecycle.reconcile import Reconciler
from serve.lifecycle.restore import Restoration
from serve.lifecycle.retirement import Retirement
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.status import AdapterStatus, describe_name
from serve.lifecycle.verbs import Trace, Verbs
from serve.lifecycle.verdict import ProbeResult
from serve.lifecycle.version import ManagedVersion
from serve.lifecycle.version_verbs import VersionVerbs
from serve.observability.events import EventLog
from serve.observability.metrics import GatewayMetrics
from serve.running import RunningRequests


class AdapterManager(VersionVerbs):
    """All verbs of one gateway. Methods belong to one event loop; disk and database work runs in threads."""

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
        file_work: FileWork | None = None,
    ) -> None:
        """`hold` keeps new requests from the engine while it is entered (Admission.hold).

        `open_source` gives the folder that a source names; None: folders below the root alone. `file_work` does
        what reads and writes files; None: threads do.
        """
        self.rules = rules
        self._metrics = metrics
        self._open_source = open_source or local_sources(rules.root)
        events = events or EventLog(registry)
        desired = DesiredState(registry)
        verbs = Verbs(events, running)
        self._bring_up = BringUp(
            engine=engine,
            board=board,
            files=KeptFiles(store, rules, self._open_source, file_work or FileWork()),
            store=store,
            metrics=metrics,
            events=events,
            rules=rules,
            hold=hold,
        )
        housekeeping = Housekeeping(self._bring_up.files, desired, board, keep_versions=rules.keep_versions)
        retirement = Retirement(engine, board, running, on_gone=self._left)
        reconciler = Reconciler(
            board=board,
            desired=desired,
            bring_up=self._bring_up,
            retirement=retirement,
            housekeeping=housekeeping,
            store=store,
            verbs=verbs,
            running=running,
            metrics=metrics,
            max_resident=rules.max_resident,
        )
        self._restoration = Restoration(
            board=board,
            desired=desired,
            bring_up=self._bring_up,
            reconciler=reconciler,
            verbs=verbs,
            running=running,
            max_resident=rules.max_resident,
        )
        self._loading = Loading(
            board=board,
            desired=desired,
            bring_up=self._bring_up,
            reconciler=reconciler,
            retirement=retirement,
            housekeeping=housekeeping,
            rules=rules,
        )
        self._started = False
        super().__init__(
            engine=engine,
            board=board,
            desired=desired,
            verbs=verbs,
            reconciler=reconciler,
            retirement=retirement,
            housekeeping=housekeeping,
            drain_seconds=rules.drain_seconds,
        )

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
        report = await self._bring_up.files.check(folder)
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
            self._reconciler.note_names()

    async def probe_again(self, managed: ManagedVersion) -> ProbeResult:
        """Ask a loaded version what it was asked when it was loaded. Raises ProbeFailedError, EngineError."""
        recorded = await asyncio.to_thread(read_probe, managed.handle.path)
        return await self._bring_up.ask(managed, recorded)

    def records(self) -> Iterator[NameRecord]:
        """What the registry wants of every name that it or this gateway knows now, by name; each as it is when its
        turn comes."""
        return map(self._desired.get, sorted({*self._desired.names(), *self.board.names()}))

    def statuses(self) -> list[AdapterStatus]:
        """Desired and actual state of every name, by name."""
        found = (describe_name(record, self.board) for record in self.records())
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
        await self._bring_up.files.all_let_go()

    @property
    def busy(self) -> int:
        """Verbs that are running."""
        return self._verbs.busy

    async def wait_quiet(self) -> None:
        """Return when no verb runs."""
        await self._verbs.wait_quiet()

    def _left(self, managed: ManagedVersion) -> None:
        self._metrics.adapter_load_seconds.labels("retire").observe(managed.phase_seconds["retire"])
        self._metrics.version_left(str(managed.version))
        self._housekeeping.left(managed)
