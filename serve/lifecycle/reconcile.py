"""Makes this gateway what the registry wants: at the start, after every verb, and after other gateways' verbs.

One function moves the board, `settle`. Whoever changed the registry, here or elsewhere, brings the versions up that
are wanted and then calls it; what is not wanted any more drains.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from adapters.errors import AdapterNotFoundError, AdapterStoreError
from adapters.name import AdapterVersion
from adapters.registry.records import NameRecord, VersionRecord
from adapters.store.store import AdapterStore
from bases.errors import HotswapError
from serve.errors import LifecycleError, RequestAbortedError
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.bring_up import BringUp
from serve.lifecycle.desired import DesiredState, read_plan, wanted
from serve.lifecycle.housekeeping import Housekeeping
from serve.lifecycle.retirement import Retirement
from serve.lifecycle.state import AdapterState
from serve.lifecycle.verbs import Verbs
from serve.lifecycle.version import ManagedVersion
from serve.observability.metrics import GatewayMetrics
from serve.running import RunningRequests

logger = logging.getLogger("hotswap.adapters")

FIRST_RETRY_SECONDS = 15.0
LAST_RETRY_SECONDS = 600.0


class Reconciler:
    """Belongs to one event loop; a name is touched under its lock."""

    def __init__(
        self,
        *,
        board: AdapterBoard,
        desired: DesiredState,
        bring_up: BringUp,
        retirement: Retirement,
        housekeeping: Housekeeping,
        store: AdapterStore,
        verbs: Verbs,
        running: RunningRequests,
        metrics: GatewayMetrics,
        max_resident: int,
    ) -> None:
        self._board = board
        self._desired = desired
        self._bring_up = bring_up
        self._retirement = retirement
        self._housekeeping = housekeeping
        self._store = store
        self._verbs = verbs
        self._running = running
        self._max_resident = max_resident
        self._metrics = metrics
        self._proofs: dict[ManagedVersion, asyncio.Task[None]] = {}
        self._pending: set[str] = set()
        self._retries: dict[str, tuple[float, float]] = {}  # name -> (when, seconds since the last time)
        self._follower: asyncio.Task[None] | None = None
        board.on_first_use = self._prove_soon

    async def start(self) -> None:
        """Bring up what the registry wants, into an engine that holds nothing. Raises RegistryError.

        Beyond the memory for adapters versions answer unread, until they are first used. A version that cannot
        be brought up is failed, with its reason.
        """
        await self._desired.read_all()
        records = [self._desired.get(name) for name in sorted(self._desired.names())]
        pairs = [(record, digest) for record in records for digest in wanted(record)]
        pairs.sort(key=lambda pair: pair[1] != pair[0].live)
        found = [version for record, digest in pairs if (version := record.get(digest)) is not None]
        for version in found[: self._max_resident]:
            await self._try(version)
        await self._list_unread(found[self._max_resident :])
        for record in records:
            self.settle(record)
        self.note_names()
        await self._housekeeping.sweep()

    async def converge(self) -> None:
        """Take over what other gateways changed, and try again what failed. Raises RegistryError."""
        self._pending |= await self._desired.read_changes()
        self._pending |= self._retries.keys()
        await self._work_off()
        await self._housekeeping.look_again()

    def follow(self, poll_seconds: float) -> None:
        """From now on look for changes by other gateways every so many seconds."""
        self._follower = asyncio.create_task(self._follow(poll_seconds), name="follow the registry")

    async def close(self) -> None:
        """Follow no more."""
        tasks = [*self._proofs.values(), *([self._follower] if self._follower is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def raise_up(self, record: VersionRecord) -> ManagedVersion:
        """That version, live and proven. Raises HotswapError."""
        await self.engine_settled()
        managed = self._board.get(record.version)
        if managed is not None and managed.state is AdapterState.DRAINING:
            if await self._retirement.revive(managed):
                return managed
            managed = None
        if managed is None or managed.state is not AdapterState.LIVE:
            return await self._bring_up.from_store(record)
        if not managed.proven:
            await self.prove(managed)
        return managed

    async def engine_settled(self) -> None:
        """Return when no version is on its way back into a new engine; nobody puts another in its place then."""
        await self._verbs.engine_settled.wait()

    async def prove(self, managed: ManagedVersion) -> None:
        """Return once a version that answers unread is proven. Raises HotswapError when it is not."""
        if not managed.proven:
            self._prove_soon(managed)
            await asyncio.shield(self._proofs[managed])

    def settle(self, record: NameRecord) -> ManagedVersion | None:
        """Let the board be as the registry wants it, as far as versions are up; returns what the alias left.

        An alias whose new version is not up goes on meaning the old one.
        """
        board, name = self._board, record.name
        left = None
        if record.live is None:
            left = board.unpoint(name)
        else:
            target = board.get(AdapterVersion(name, record.live))
            current = board.behind(name)
            stuck = current is None or current.state is AdapterState.FAILED
            if target is not None and (target.state is AdapterState.LIVE or stuck):
                left = board.point(target)
            board.share(name, read_plan(record))
        keep = {*wanted(record)}
        for managed in board.versions(name):
            if managed.version.digest in keep or managed is board.behind(name):
                continue
            if managed.state is AdapterState.LIVE:
                self._retirement.begin(managed)
            elif managed.state is AdapterState.FAILED and managed is left:
                board.forget(managed)
        return left

    def is_settled(self, record: NameRecord) -> bool:
        """Whether everything that is wanted of a name is up here."""
        behind = self._board.behind(record.name)
        if (behind.version.digest if behind is not None else None) != record.live:
            return False
        versions = (self._board.get(AdapterVersion(record.name, digest)) for digest in wanted(record))
        return all(managed is not None and managed.state is AdapterState.LIVE for managed in versions)

    def note_names(self) -> None:
        """Tell the metrics that names or versions came or went."""
        self._metrics.known_adapters(self._board.aliases())
        self._bring_up.count_states()

    def retry_later(self, name: str) -> None:
        """Something of a name could not be brought up: try again, less and less often."""
        _, waited = self._retries.get(name, (0.0, 0.0))
        seconds = min(max(FIRST_RETRY_SECONDS, 2 * waited), LAST_RETRY_SECONDS)
        self._retries[name] = (time.monotonic() + seconds, seconds)

    def retry_at_once(self, name: str) -> None:
        """Something of a name was not tried yet: the next look at the registry takes it along."""
        self._retries[name] = (time.monotonic(), 0.0)

    async def _follow(self, poll_seconds: float) -> None:
        reachable = True
        while not self._verbs.closing:
            await asyncio.sleep(poll_seconds)
            try:
                self._pending |= await self._desired.read_changes()
                now = time.monotonic()
                self._pending |= {name for name, (when, _) in self._retries.items() if when <= now}
                await self._work_off()
                await self._housekeeping.look_again()
            except Exception as error:  # the background boundary: what serves goes on serving
                if not isinstance(error, HotswapError):
                    logger.exception("changes by other gateways could not be taken over")
                elif reachable:
                    logger.error("changes by other gateways are not seen: %s", error)
                reachable = False
            else:
                reachable = True

    async def _work_off(self) -> None:
        for name in sorted(self._pending):
            if not self._verbs.locks.is_held(name):  # a verb is at it; the next time
                self._pending.discard(name)
                try:
                    await self._take_over(name)
                except BaseException:
                    self._pending.add(name)
                    raise

    async def _take_over(self, name: str) -> None:
        async with self._verbs.locks.hold(name):
            await self._verbs.engine_settled.wait()
            before = self._desired.get(name)
            record = await self._desired.read(name)
            for digest in wanted(record):
                version = record.get(digest)
                if version is not None:
                    await self._try(version)
            self.settle(record)
            if self.is_settled(record):
                self._retries.pop(name, None)
            for gone in before.versions:
                if record.get(gone.version.digest) is None:
                    await self._housekeeping.drop_files(gone.version.digest)
            if not record.known:
                self._forget_failures(name)
            self.note_names()

    async def _try(self, version: VersionRecord) -> None:
        try:
            await self.raise_up(version)
        except HotswapError as error:
            logger.error("adapter %s cannot be brought up: %s", version.version, error)
            self.retry_later(version.version.name)

    def _forget_failures(self, name: str) -> None:
        for managed in self._board.versions(name):
            if managed.state is AdapterState.FAILED:
                self._board.forget(managed)

    async def _list_unread(self, versions: list[VersionRecord]) -> None:
        files = self._bring_up.files
        try:
            holds = await files.hold_all([version.version.digest for version in versions])
        except AdapterStoreError as error:
            for version in versions:
                self._bring_up.manage_unread(version, self._bring_up.nowhere).fail(error)
                self.retry_at_once(version.version.name)
            return
        paths = await asyncio.to_thread(self._find, versions)
        for version, hold, path in zip(versions, holds, paths, strict=True):
            managed = self._bring_up.manage_unread(version, path or self._bring_up.nowhere)
            managed.hold = hold
            try:
                files.check_fits(version)
                if path is None:
                    raise LifecycleError("its files are not in this server's store")
            except LifecycleError as error:
                managed.fail(error)
                self.retry_at_once(version.version.name)

    def _find(self, versions: list[VersionRecord]) -> list[Path | None]:
        paths: list[Path | None] = []
        for version in versions:
            try:
                paths.append(self._store.path(version.version.digest))
            except AdapterNotFoundError:
                paths.append(None)
        return paths

    def _prove_soon(self, managed: ManagedVersion) -> None:
        if managed not in self._proofs:
            task = asyncio.create_task(self._prove(managed), name=f"prove {managed.version}")
            self._proofs[managed] = managed.proof = task
            task.add_done_callback(lambda task: self._proved(managed, task))

    def _proved(self, managed: ManagedVersion, task: asyncio.Task[None]) -> None:
        self._proofs.pop(managed, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("adapter %s was not proven: %s", managed.version, error)

    async def _prove(self, managed: ManagedVersion) -> None:
        version = managed.version
        try:
            record = self._desired.get(version.name).get(version.digest)
            if record is None:
                raise LifecycleError(f"adapter {version} is not registered any more")
            await self._bring_up.prove(managed, record)
            if self._board.get(version) is not managed:  # it drained meanwhile
                await self._bring_up.engine.unload_adapter(managed.handle)
        except HotswapError as error:
            if managed.state is AdapterState.FAILED:
                cause = RequestAbortedError(f"adapter {version} was refused when it was first read: {error}")
                self._running.abort_version(str(version), cause)
                self.retry_later(version.name)
            raise
