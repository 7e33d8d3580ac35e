"""The verbs on adapters: load, unload, converge; and what goes on after them until the engine is clean.

A swap: check, copy into the store, load, probe, write the alias to the registry, move the alias in one step,
let the old version drain, unload it, verify. Any failure before the alias moves leaves the old version serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from adapters.check import check_adapter
from adapters.errors import AdapterCheckError, AdapterStoreError
from adapters.name import AdapterVersion, parse_alias
from adapters.probe import Probe, read_probe
from adapters.registry.records import NewVersion
from adapters.registry.registry import Registry
from adapters.report import CheckReport
from adapters.source import resolve_source
from adapters.store import AdapterStore
from bases.errors import HotswapError
from serve.engine.protocol import AdapterHandle, Engine
from serve.errors import AdapterMissingError, LifecycleError, ProbeFailedError
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.outcomes import LoadOutcome, MoveOutcome
from serve.lifecycle.probe import AdapterProbe
from serve.lifecycle.retirement import Retirement
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.state import AdapterState
from serve.lifecycle.status import AdapterStatus
from serve.lifecycle.strength import Strengths
from serve.lifecycle.traffic import TrafficPlan
from serve.lifecycle.verbs import Verbs
from serve.lifecycle.version import ManagedVersion, VersionFacts
from serve.metrics import GatewayMetrics
from serve.running import RunningRequests

logger = logging.getLogger("hotswap.adapters")


class AdapterManager:
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
        hold: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`hold` keeps new requests from the engine while it is entered (Admission.hold)."""
        self.board = board
        self.rules = rules
        self._engine = engine
        self._registry = registry
        self._store = store
        self._metrics = metrics
        self._engine_ids = itertools.count(1)
        strengths = Strengths(engine, store, lambda: next(self._engine_ids))
        self._probe = AdapterProbe(engine, hold=hold, at_strength=strengths.at, rounded=rules.target.rounded)
        self._desired: dict[str, str] = {}  # alias -> digest, as the registry has it
        # Two names may share one folder of the store: none is written while another's leftovers are removed.
        self._files = asyncio.Lock()
        self._verbs = Verbs(registry, running)
        self._retirement = Retirement(engine, board, running)

    async def converge(self) -> None:
        """Bring up what the registry says should be live. A version that cannot be is listed as failed."""
        aliases = await asyncio.to_thread(self._registry.list_aliases)
        records = {r.version: r for r in await asyncio.to_thread(self._registry.list_versions)}
        for place, alias in enumerate(aliases):
            version = alias.version
            record = records[version]
            self._desired[version.name] = version.digest
            facts = VersionFacts(record.rank, record.num_bytes, record.source)
            managed = self._manage(version, facts, self.rules.root)
            self.board.point(managed)
            try:
                if record.base_fingerprint != self.rules.target.fingerprint:
                    raise LifecycleError(
                        "it was checked against another base model; load it again for this one"
                    )
                if record.rank > self.rules.max_lora_rank:
                    raise LifecycleError(
                        f"its rank {record.rank} is above --max-lora-rank {self.rules.max_lora_rank}"
                    )
                path = await asyncio.to_thread(self._store.path, version.digest)
                if not await asyncio.to_thread(self._store.verify, version.digest):
                    raise LifecycleError("its files in the store are damaged; load it again from its source")
                managed.handle = AdapterHandle(str(version), managed.handle.engine_id, path)
                managed.advance(AdapterState.CHECKED)
                recorded = await asyncio.to_thread(read_probe, path)
                await self._bring_up(managed, recorded, resident=place < self.rules.max_resident)
            except HotswapError as error:
                await self._give_up(managed, error)
        self._note_names()

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

        Raises AdapterNameError, AdapterSourceError, AdapterCheckError (with every problem), AdapterStoreError,
        RegistryError, LifecycleError, EngineError; the previous version then still serves.
        """
        alias = parse_alias(name, base_name=self.board.base_name)
        async with self._verbs.run(alias, "load", actor) as event:
            event["source"] = source
            folder = await asyncio.to_thread(resolve_source, source, [self.rules.root])
            return await self._load(alias, folder, source, event)

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

        The folder is not needed any more when this returns.
        """
        alias = parse_alias(name, base_name=self.board.base_name)
        async with self._verbs.run(alias, "load", actor) as event:
            event["source"] = "upload"
            return await self._load(alias, folder, None, event)

    async def _load(self, alias: str, folder: Path, source: str | None, event: dict[str, str]) -> LoadOutcome:
        """`source` None: named after the content."""
        started = time.perf_counter()
        report = await asyncio.to_thread(
            check_adapter,
            folder,
            target=self.rules.target,
            max_lora_rank=self.rules.max_lora_rank,
            max_bytes=self.rules.max_bytes,
        )
        check_seconds = time.perf_counter() - started
        report.raise_for_problems()
        facts = report.facts
        if facts.digest is None or facts.rank is None or facts.num_bytes is None:
            raise AdapterCheckError(report)
        version = AdapterVersion(alias, facts.digest)
        event["digest"] = facts.digest
        if source is None:
            source = event["source"] = f"upload:{facts.digest[:8]}"
        current = self.board.behind(alias)
        if current is not None and current.version == version and current.state is AdapterState.LIVE:
            return LoadOutcome(current, created=False, replaced=None, report=report)
        # From where it was checked: the store may have the same weights with the probe of a load that failed.
        recorded = await asyncio.to_thread(read_probe, folder)
        managed = await self._stage(version, VersionFacts(facts.rank, facts.num_bytes, source), folder)
        managed.phase_seconds["check"] = round(check_seconds, 4)
        try:
            if managed.state is AdapterState.CHECKED:
                await self._bring_up(managed, recorded, resident=True)
                async with self._files:
                    await asyncio.to_thread(self._store.renew, folder, version.digest)
            await asyncio.to_thread(
                self._registry.set_alias, version, expected_digest=self._desired.get(alias)
            )
        except (HotswapError, asyncio.CancelledError) as error:
            await self._take_back(managed, error)
            raise
        self._desired[alias] = version.digest
        managed.phase_seconds["total"] = round(time.perf_counter() - started, 4)
        for phase, seconds in managed.phase_seconds.items():
            self._metrics.adapter_load_seconds.labels(phase).observe(seconds)
        previous = self.board.point(managed)
        if previous is not None and previous.state is AdapterState.LIVE:
            self._retirement.begin(previous)
        elif previous is not None:
            self.board.forget(previous)
        self._note_names()
        return LoadOutcome(
            managed,
            created=True,
            replaced=previous.version if previous is not None and previous.version != version else None,
            report=report,
        )

    async def unload(
        self, name: str, *, actor: str, drain_seconds: float | None = None
    ) -> list[AdapterVersion]:
        """Take `name` away: no new request finds it, running ones finish (or end at the limit), it is unloaded.

        Returns the versions that went. Raises AdapterMissingError, UnloadFailedError, RegistryError.
        """
        alias = parse_alias(name)
        limit = self.rules.drain_seconds if drain_seconds is None else drain_seconds
        async with self._verbs.run(alias, "unload", actor):
            known = any(managed.version.name == alias for managed in self.board.versions())
            if not known and alias not in self._desired:
                raise AdapterMissingError(f"no adapter is called {alias!r}; GET /admin/adapters lists them")
            await asyncio.to_thread(self._registry.drop_alias, alias)
            self._desired.pop(alias, None)
            managed = self.board.unpoint(alias)
            if managed is not None and managed.state is AdapterState.LIVE:
                self._retirement.begin(managed)
            await self._retirement.drain(alias, limit)
            resident = await self._engine.resident_adapters()
            for leftover in [m for m in self.board.versions() if m.version.name == alias]:
                if leftover.handle.engine_id in resident:
                    await self._engine.unload_adapter(leftover.handle)
                self.board.forget(leftover)
            async with self._files:
                removed = await asyncio.to_thread(self._remove_versions, alias)
            self._note_names()
            return removed

    async def validate(self, source: str, *, actor: str) -> CheckReport:
        """A dry run: nothing is stored, the engine is not called. Raises AdapterSourceError."""
        raise NotImplementedError

    async def validate_folder(self, folder: Path, *, actor: str) -> CheckReport:
        """A dry run of what was received into `folder`."""
        raise NotImplementedError

    async def promote(
        self, name: str, version: str, *, actor: str, expected_live: str | None = None
    ) -> MoveOutcome:
        """Let the alias mean `version` (`3f2a91c0`, a longer digest, or `risk@3f2a91c0`)."""
        raise NotImplementedError

    async def rollback(self, name: str, *, actor: str) -> MoveOutcome:
        """Let the alias mean what it meant before."""
        raise NotImplementedError

    async def set_traffic(self, name: str, plan: TrafficPlan, *, actor: str) -> TrafficPlan:
        """Share the requests of `name`; returns the plan with whole digests."""
        raise NotImplementedError

    async def clear_traffic(self, name: str, *, actor: str, reason: str | None = None) -> TrafficPlan | None:
        """The stable version alone answers to `name`; returns the plan that there was."""
        raise NotImplementedError

    async def pin(self, name: str, version: str, *, actor: str) -> ManagedVersion:
        """Keep a version loaded, and answering to `name@digest`, whatever the alias means."""
        raise NotImplementedError

    async def unpin(self, name: str, version: str, *, actor: str) -> bool:
        """Take a pin back; False when there was none."""
        raise NotImplementedError

    async def prefetch(self, name: str, version: str, *, actor: str) -> ManagedVersion:
        """Bring a version into memory, probed, without moving the alias."""
        raise NotImplementedError

    async def unload_version(
        self, name: str, version: str, *, actor: str, drain_seconds: float | None = None
    ) -> AdapterVersion:
        """Take one version out of the engine; it stays in store and registry."""
        raise NotImplementedError

    async def restore(self, engine: Engine) -> None:
        """Bring every version back on a fresh engine, the same ones, verified and probed."""
        raise NotImplementedError

    def statuses(self) -> list[AdapterStatus]:
        """Desired and actual state of every name, by name."""
        raise NotImplementedError

    def status(self, name: str) -> AdapterStatus | None:
        """Desired and actual state of one name; None when nothing is known of it."""
        raise NotImplementedError

    def check_open(self) -> None:
        """Raises DrainingError once no more verbs are taken."""
        self._verbs.check_open()

    def refuse(self) -> None:
        """Take no more verbs; running ones go on."""
        self._verbs.refuse()

    async def close(self) -> None:
        """Take no more verbs, wait for running ones and their events, stop waiting for versions that drain."""
        await self._verbs.close()
        await self._retirement.close()

    @property
    def busy(self) -> int:
        """Verbs that are running."""
        return self._verbs.busy

    async def wait_quiet(self) -> None:
        """Return when no verb runs."""
        await self._verbs.wait_quiet()

    def _manage(self, version: AdapterVersion, facts: VersionFacts, path: Path) -> ManagedVersion:
        handle = AdapterHandle(str(version), next(self._engine_ids), path)
        managed = ManagedVersion(version, handle, facts, self._stepped)
        self.board.add(managed)
        self._count_states()
        return managed

    async def _stage(self, version: AdapterVersion, facts: VersionFacts, folder: Path) -> ManagedVersion:
        """A version that is in the store and the registry: checked, or live when it had not drained yet."""
        managed = self.board.get(version)
        draining = managed is not None and managed.state is AdapterState.DRAINING
        if managed is not None and draining and await self._retirement.revive(managed):
            return managed
        managed = self._manage(version, facts, folder)
        try:
            with managed.timed("store"):
                async with self._files:
                    path = await self._keep(version, facts, folder)
        except (HotswapError, asyncio.CancelledError) as error:
            managed.fail(error)
            raise
        managed.handle = AdapterHandle(str(version), managed.handle.engine_id, path)
        managed.advance(AdapterState.CHECKED)
        return managed

    async def _keep(self, version: AdapterVersion, facts: VersionFacts, folder: Path) -> Path:
        """Copy a version into the store and write it into the registry; returns its folder in the store."""
        path = await asyncio.to_thread(self._store.publish, folder, version.digest)
        new = NewVersion(version, facts.rank, facts.num_bytes, self.rules.target.fingerprint, facts.source)
        await asyncio.to_thread(self._registry.add_version, new)
        return path

    async def _bring_up(self, managed: ManagedVersion, recorded: Probe | None, *, resident: bool) -> None:
        managed.advance(AdapterState.LOADING)
        if not resident:
            managed.advance(AdapterState.LIVE, "read by the engine when it is first used")
            return
        with managed.timed("load"):
            await self._engine.load_adapter(managed.handle)
        if self.rules.probe:
            managed.advance(AdapterState.PROBING)
            with managed.timed("probe"):
                await self._ask(managed, recorded)
        managed.advance(AdapterState.LIVE)

    async def _ask(self, managed: ManagedVersion, recorded: Probe | None) -> None:
        kind = "effect" if recorded is None else "replay"
        try:
            if recorded is None:
                result = await self._probe.effect(managed.handle)
            else:
                result = await self._probe.replay(managed.handle, recorded)
        except ProbeFailedError as error:
            self._metrics.adapter_probes.labels(kind, error.cause).inc()
            logger.warning("adapter %s refused by its probe (%s): %s", managed.version, error.cause, error)
            raise
        managed.probe = result
        if result.difference is not None:
            self._metrics.adapter_probe_difference.observe(result.difference)
        self._metrics.adapter_probes.labels(kind, "passed").inc()
        logger.info("adapter %s probed: %s", managed.version, result.describe())

    async def _take_back(self, managed: ManagedVersion, error: BaseException) -> None:
        """Undo a load that failed before its alias moved."""
        if self.board.behind(managed.version.name) is managed:
            return  # it was live before and still is
        if managed.state is AdapterState.LIVE and managed.in_flight:
            self._retirement.begin(managed)  # somebody named this very version and is being answered by it
            return
        await self._give_up(managed, error)

    async def _give_up(self, managed: ManagedVersion, error: BaseException) -> None:
        """Mark a version as failed and leave nothing of it in the engine."""
        was_loaded = managed.state in (AdapterState.LOADING, AdapterState.PROBING, AdapterState.LIVE)
        managed.fail(error)
        if was_loaded:
            try:
                await asyncio.shield(self._engine.unload_adapter(managed.handle))
            except HotswapError as second:
                logger.error("adapter %s could not be taken out of the engine: %s", managed.version, second)

    def _remove_versions(self, alias: str) -> list[AdapterVersion]:
        """Forget all versions of a name; files go when no other name has the same content."""
        removed = []
        for record in self._registry.list_versions(alias):
            self._registry.remove_version(record.version)
            removed.append(record.version)
        kept = {record.version.digest for record in self._registry.list_versions()}
        for version in removed:
            if version.digest not in kept:
                try:
                    self._store.remove(version.digest)
                except AdapterStoreError as error:
                    logger.warning("the files of %s stay in the store: %s", version, error)
        return removed

    def _stepped(self, managed: ManagedVersion, came_from: AdapterState) -> None:
        logger.info(
            "adapter %s: %s -> %s%s",
            managed.version,
            came_from,
            managed.state,
            f" ({managed.reason})" if managed.reason else "",
        )
        self._metrics.adapter_transitions.labels(str(managed.state)).inc()
        self._count_states()

    def _count_states(self) -> None:
        for state in AdapterState:
            count = sum(1 for managed in self.board.versions() if managed.state is state)
            self._metrics.adapters.labels(str(state)).set(count)

    def _note_names(self) -> None:
        self._metrics.known_adapters(self.board.aliases())
        self._count_states()
