"""Turns settings into a running gateway and back: the one place where configuration meets the classes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from adapters.errors import AdapterSourceError
from adapters.registry.keys import KeyTable
from adapters.registry.operations import OperationTable
from adapters.registry.records import Event
from adapters.registry.registry import Registry
from adapters.store.store import AdapterStore
from adapters.target import TargetBase, describe_target
from bases.errors import HotswapError
from bases.passport import read_passport
from serve.access.authority import Authority
from serve.access.keyring import KeyRing
from serve.access.quotas import Quotas
from serve.access.salts import CacheSalts
from serve.admission.admission import Admission
from serve.app import HttpLimits
from serve.engine.grammar import GrammarGuard
from serve.engine.protocol import MortalEngine
from serve.engine.scripted import SCRIPTED_TARGET
from serve.engine.supervised.engine import SupervisedEngine
from serve.engine.supervised.supervisor import EngineFactory
from serve.engine_setup import given_engines, served_base, supervision_rules, vllm_engines
from serve.errors import SettingsError
from serve.gateway import Gateway, Phase
from serve.http.exchange import ExchangeLimits, Exchanges
from serve.http.host import LOOPBACK_NAMES
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.canary import CanaryJudge
from serve.lifecycle.file_work import FileWork
from serve.lifecycle.listing import Listing
from serve.lifecycle.manager import AdapterManager
from serve.lifecycle.residents import Residents
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.shadow import Shadows
from serve.lifecycle.sources import SourceLimits, Sources, check_packages
from serve.lifecycle.uploads import UploadLimits, Uploads
from serve.lifecycle.watcher import FolderWatcher
from serve.observability.audit import Audit
from serve.observability.events import GATEWAY_ACTOR, EventLog
from serve.observability.metrics import GatewayMetrics
from serve.observability.startup import note_stage
from serve.observability.tracing import Tracing, export_to
from serve.operations.instance import Instance, take_instance
from serve.operations.operations import Operations
from serve.review.finding import find_reviewers
from serve.review.review import Reviewer, ReviewLimits
from serve.review.text_reviewer import TextReviewer
from serve.review.threads import ReviewThreads
from serve.running import RunningRequests
from serve.schemas.admin import adapter_fields
from serve.settings import KIB, MIB, ServeSettings
from serve.shutdown import ABORT_SECONDS

logger = logging.getLogger("hotswap.gateway")

# A batch that is full has this share of its width waiting inside the engine, so that a freed place is taken in
# the very next step.
RUNNING_AHEAD = 1.25


def http_limits(settings: ServeSettings) -> HttpLimits:
    """What the application accepts from the wire."""
    hosts = settings.allowed_hosts or (LOOPBACK_NAMES if settings.on_loopback else ())
    return HttpLimits(
        max_body_bytes=settings.max_body_kib * KIB,
        receive_seconds=settings.receive_seconds,
        allowed_hosts=hosts,
    )


class GatewayLife:
    """Brings one gateway up and takes it down."""

    def __init__(
        self,
        settings: ServeSettings,
        *,
        engine: MortalEngine | EngineFactory | None = None,
        on_ready: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`engine` replaces the one that the settings name; used by tests. A single one is started again itself.

        `on_ready` is called after each restart of the engine, `on_lost` when there will be no further one.
        """
        self._settings = settings
        self._given = engine
        self._on_ready, self._on_lost = on_ready, on_lost
        self._engine: SupervisedEngine | None = None
        self._registry: Registry | None = None
        self._instance: Instance | None = None
        self._keys: KeyRing | None = None
        self._files: FileWork | None = None
        self._store: AdapterStore | None = None
        self._grammars: GrammarGuard | None = None
        self._watcher: FolderWatcher | None = None
        self._tracing: Tracing | None = None
        self.gateway: Gateway | None = None

    async def up(self) -> Gateway:
        """Everything started, adapters live again. Raises HotswapError with what is wrong."""
        settings = self._settings
        reviewers = await asyncio.to_thread(_reviewers, settings)
        await asyncio.to_thread(_check_sources, settings)
        tokenizer_path = None
        if self._given is None and settings.engine == "vllm":
            base = await asyncio.to_thread(served_base, settings)
            passport = await asyncio.to_thread(read_passport, base, home=settings.home)
            target = describe_target(base, passport)
            tokenizer_path = base.path
            factory = vllm_engines(settings, base, passport)
        else:
            target = SCRIPTED_TARGET
            factory = given_engines(self._given, settings)
        note_stage("base read")
        grammars = self._grammars = GrammarGuard(
            enabled=settings.structured_outputs,
            tokenizer_path=tokenizer_path,
            compile_seconds=settings.grammar_compile_seconds,
        )
        engine = self._engine = SupervisedEngine(factory, supervision_rules(settings))
        await asyncio.to_thread(_make_folders, settings)
        self._instance = await asyncio.to_thread(take_instance, settings.home)
        registry = Registry(settings.registry, timeout_seconds=settings.registry_timeout_seconds)
        await asyncio.to_thread(registry.open)
        self._registry = registry
        keys = self._keys = KeyRing(
            KeyTable(registry),
            refresh_seconds=settings.key_refresh_seconds,
            outage_seconds=settings.key_outage_seconds,
        )
        await keys.open()
        store = self._store = AdapterStore(settings.home / "store")
        await asyncio.to_thread(store.clean)
        note_stage("registry open")
        files = self._files = FileWork(in_process=settings.engine == "vllm" and self._given is None)
        # Beside the engine's start, which leaves cores idle: afterwards it would slow the first answers.
        async with _warming(grammars):
            await engine.start()
            operations = OperationTable(registry, instance=self._instance.name)
            self.gateway = self._assemble(
                engine, registry, operations, keys, store, files, target, grammars, reviewers
            )
            await self.gateway.operations.recover()
            await self.gateway.adapters.converge()
            note_stage("adapters restored")
        await engine.check_health()  # one that died meanwhile has no adapters, and is a failed start
        engine.supervise(
            self.gateway.adapters.restore,
            metrics=self.gateway.metrics,
            on_ready=_noted(self._on_ready, self.gateway.events, "restarted"),
            on_lost=_noted(self._on_lost, self.gateway.events, "lost", last=True),
        )
        if settings.registry_poll_seconds:
            self.gateway.adapters.follow(settings.registry_poll_seconds)
        self.gateway.canaries.start()
        if settings.watch_seconds:
            self._watcher = FolderWatcher(
                settings.adapter_folder,
                self.gateway.adapters,
                registry,
                self.gateway.events,
                seconds=settings.watch_seconds,
            )
            self._watcher.start()
        self.gateway.phase = Phase.READY
        return self.gateway

    def _assemble(
        self,
        engine: SupervisedEngine,
        registry: Registry,
        operations: OperationTable,
        keys: KeyRing,
        store: AdapterStore,
        files: FileWork,
        target: TargetBase,
        grammars: GrammarGuard,
        reviewers: list[TextReviewer],
    ) -> Gateway:
        settings, facts = self._settings, engine.facts
        running, metrics = RunningRequests(), GatewayMetrics(max_versions=settings.metrics_versions)
        admission = Admission(
            max_running=max(facts.max_num_seqs + 1, int(facts.max_num_seqs * RUNNING_AHEAD)),
            max_queued_requests=settings.max_queued_requests,
            max_queued_tokens=settings.max_queued_tokens,
            queue_seconds=settings.queue_seconds,
            max_wait_seconds=settings.max_wait_seconds,
        )
        max_adapter_bytes = settings.max_adapter_mib * MIB
        events = EventLog(registry)
        events.listen(metrics.note_event)
        tracing = self._tracing = _tracing(settings)
        if tracing is not None:
            events.listen(tracing.note_event)
        manager = AdapterManager(
            engine=engine,
            board=AdapterBoard(facts.model_name),
            registry=registry,
            store=store,
            running=running,
            metrics=metrics,
            rules=AdapterRules(
                root=settings.adapter_folder,
                target=target,
                max_lora_rank=facts.max_lora_rank,
                max_bytes=max_adapter_bytes,
                probe=settings.adapter_probe != "off",
                drain_seconds=settings.drain_seconds,
                max_resident=facts.max_cpu_loras,
                keep_versions=settings.keep_versions,
            ),
            events=events,
            open_source=_sources(settings, store).open,
            hold=admission.hold,
            file_work=files,
        )
        key = settings.admin_key.get_secret_value() if settings.admin_key is not None else None
        canaries = CanaryJudge(manager.board, manager, metrics)
        return Gateway(
            engine=engine,
            adapters=manager,
            listing=Listing(manager.board, adapter_fields),
            residents=Residents(engine.resident_adapters),
            canaries=canaries,
            shadows=Shadows(engine, admission, running, metrics, max_seconds=settings.request_seconds),
            uploads=Uploads(
                store,
                UploadLimits(
                    max_adapter_bytes=max_adapter_bytes,
                    idle_seconds=settings.receive_seconds,
                    total_seconds=settings.upload_seconds,
                ),
            ),
            operations=Operations(operations, events),
            events=events,
            audit=Audit(events),
            admission=admission,
            exchanges=Exchanges(
                running,
                metrics,
                ExchangeLimits(
                    request_seconds=settings.request_seconds,
                    send_seconds=settings.send_seconds,
                    first_token_seconds=settings.first_token_seconds,
                ),
                observers=[canaries.observe],
                tracing=tracing,
            ),
            running=running,
            metrics=metrics,
            access=Authority(
                key=key,
                open_without_key=settings.on_loopback and settings.auth != "required",
                required=settings.key_required,
                keys=keys,
            ),
            keys=keys,
            salts=CacheSalts(),
            quotas=Quotas(),
            review=Reviewer(
                reviewers,
                ReviewLimits(seconds=settings.review_seconds, fail_open=settings.review_failure == "open"),
                metrics=metrics,
                note=events.note,
            ),
            grammars=grammars,
            max_tokens_default=settings.max_tokens_default,
            session_header=settings.session_header,
        )

    async def _close_watcher(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await watcher.close()

    async def down(self) -> None:
        """End the engine and close what is open. Idempotent."""
        gateway, self.gateway = self.gateway, None
        if gateway is not None:
            gateway.phase = Phase.STOPPED
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ABORT_SECONDS):
                    await self._close_watcher()
                    await gateway.canaries.close()
                    await gateway.shadows.close()
                    await gateway.adapters.close()
                    await gateway.operations.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ABORT_SECONDS):  # the registry may not answer
                    await gateway.operations.abandon()
                    await gateway.events.close()
            await gateway.residents.close()
        grammars, self._grammars = self._grammars, None
        if grammars is not None:
            await grammars.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()
        files, self._files = self._files, None
        if files is not None:
            await files.close()
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)  # the engine that read from it has ended
        keys, self._keys = self._keys, None
        if keys is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ABORT_SECONDS):
                    await keys.close()
        tracing, self._tracing = self._tracing, None
        if tracing is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ABORT_SECONDS):
                    await asyncio.to_thread(tracing.close)
        registry, self._registry = self._registry, None
        if registry is not None:
            await asyncio.to_thread(registry.close)
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.leave()


@contextlib.asynccontextmanager
async def _warming(grammars: GrammarGuard) -> AsyncIterator[None]:
    """Start the schema compiler beside the block, and end with both; without a compiler the gateway serves on."""
    warming = asyncio.create_task(_warm(grammars), name="start of the schema compiler")
    try:
        yield
        await warming
    finally:
        warming.cancel()
        await asyncio.wait({warming})


async def _warm(grammars: GrammarGuard) -> None:
    try:
        if await grammars.warm():
            note_stage("schema compiler ready")
    except (HotswapError, OSError, RuntimeError, TimeoutError) as error:
        logger.warning("structured outputs are not available: %s", error)


def _sources(settings: ServeSettings, store: AdapterStore) -> Sources:
    limits = SourceLimits(settings.max_adapter_mib * MIB, settings.upload_seconds)
    return Sources(store, settings.adapter_folder, settings.allowed_sources, limits)


def _check_sources(settings: ServeSettings) -> None:
    """Raises SettingsError when a store that may be read from cannot be: found before an engine is started."""
    try:
        check_packages(settings.allowed_sources)
    except AdapterSourceError as error:
        raise SettingsError(f"--allowed-sources: {error}") from None


def _noted(
    act: Callable[[], None], events: EventLog, outcome: str, *, last: bool = False
) -> Callable[[], None]:
    """`act`, and an event about the engine; after the `last` one nobody follows the events any more."""

    def noted() -> None:
        events.note(Event(GATEWAY_ACTOR, "engine", outcome))
        if last:
            events.end_soon()
        act()

    return noted


def _tracing(settings: ServeSettings) -> Tracing | None:
    if settings.otlp_endpoint is None:
        return None
    return Tracing(export_to(settings.otlp_endpoint, share=settings.trace_share))


def _reviewers(settings: ServeSettings) -> list[TextReviewer]:
    """Found before anything is started: a policy that cannot be read is no reason to wait for an engine."""
    return find_reviewers(
        settings.review, rules=settings.review_rules, threads=ReviewThreads(), seconds=settings.review_seconds
    )


def _make_folders(settings: ServeSettings) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.adapter_folder.mkdir(parents=True, exist_ok=True)
