"""The files of versions: checked before they are kept, verified before they are loaded, fetched again when lost.

What this gateway has on its board it holds in the store, from before the files are looked for until the version has
failed or left the engine: other gateways may serve from the same store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from adapters.check import check_adapter
from adapters.errors import AdapterError, AdapterNotFoundError
from adapters.registry.records import VersionRecord
from adapters.report import CheckReport
from adapters.source import resolve_source
from adapters.store.holds import Hold
from adapters.store.store import AdapterStore, Removal
from serve.errors import LifecycleError
from serve.lifecycle.file_work import FileWork
from serve.lifecycle.rules import AdapterRules
from serve.lifecycle.version import ManagedVersion

logger = logging.getLogger("hotswap.adapters")

# Gives the folder that a source's text names, for the length of the block. Raises AdapterSourceError and others.
OpenSource = Callable[[str], AbstractAsyncContextManager[Path]]


def local_sources(root: Path) -> OpenSource:
    """Sources below one folder of this machine."""

    @asynccontextmanager
    async def open_source(text: str) -> AsyncIterator[Path]:
        yield await asyncio.to_thread(resolve_source, text, [root])

    return open_source


class KeptFiles:
    """What one gateway's store has. Belongs to one event loop; the disk is read beside it."""

    def __init__(
        self, store: AdapterStore, rules: AdapterRules, open_source: OpenSource, work: FileWork
    ) -> None:
        self._store = store
        self._rules = rules
        self._open_source = open_source
        self._work = work
        self._letting_go: set[asyncio.Task[None]] = set()
        self._removing = asyncio.Lock()  # one after the other: two at once would take each other for holders

    async def hold(self, managed: ManagedVersion) -> None:
        """Let the files of a version stay, or come to stay, until `let_go`. Raises AdapterStoreError."""
        [managed.hold] = await self.hold_all([managed.version.digest])

    async def hold_all(self, digests: Sequence[str]) -> list[Hold]:
        """A hold on the files of each. Raises AdapterStoreError."""
        taking = asyncio.ensure_future(asyncio.to_thread(self._hold_all, digests))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._not_wanted)
            raise

    def let_go(self, managed: ManagedVersion) -> None:
        """The files of a version are not needed any more, or nothing was held of them."""
        hold, managed.hold = managed.hold, None
        if hold is not None:
            self._release([hold])

    async def all_let_go(self) -> None:
        """Return when nothing is held any more that was let go of."""
        while self._letting_go:
            await asyncio.wait(self._letting_go)

    async def check(self, folder: Path) -> CheckReport:
        """All that is wrong with the adapter in `folder`."""
        self._work.expect()
        rules = self._rules
        return await self._work.run(
            check_adapter,
            folder,
            target=rules.target,
            max_lora_rank=rules.max_lora_rank,
            max_bytes=rules.max_bytes,
        )

    async def publish(self, folder: Path, digest: str) -> Path:
        """Copy a checked version into the store. Raises AdapterChangedError, AdapterStoreError."""
        return await self._work.run(self._store.publish, folder, digest)

    async def renew(self, folder: Path, digest: str) -> None:
        """Let the stored manifest and probe be those of `folder`."""
        await self._work.run(self._store.renew, folder, digest)

    async def verify(self, digest: str) -> bool:
        """Whether a version is in the store, and undamaged."""
        return await self._work.run(self._store.verify, digest)

    async def remove(self, digest: str, *, wanted: Callable[[], bool]) -> Removal:
        """Delete a version's files unless any gateway holds them, or `wanted`, which blocks, says so.

        Raises AdapterStoreError, and what `wanted` raises.
        """
        async with self._removing:
            await self.all_let_go()
            return await asyncio.to_thread(self._store.remove, digest, wanted=wanted)

    async def digests(self) -> list[str]:
        """Digests of what the store has. Raises AdapterStoreError."""
        return await asyncio.to_thread(self._store.list)

    async def find(self, record: VersionRecord) -> Path:
        """The folder of a registered version in this store, its bytes verified.

        One that is missing or damaged is fetched again from where it came from. Raises LifecycleError and what
        the store and the source raise.
        """
        self.check_fits(record)
        digest = record.version.digest
        if await self.verify(digest):
            return await asyncio.to_thread(self._store.path, digest)
        return await self._fetch(record)

    def check_fits(self, record: VersionRecord) -> None:
        """Raises LifecycleError when this server cannot have that version, whatever its files are."""
        if record.base_fingerprint != self._rules.target.fingerprint:
            raise LifecycleError("it was checked against another base model; load it again for this one")
        if record.rank > self._rules.max_lora_rank:
            raise LifecycleError(
                f"its rank {record.rank} is above --max-lora-rank {self._rules.max_lora_rank}"
            )

    async def _fetch(self, record: VersionRecord) -> Path:
        digest = record.version.digest
        lost = await asyncio.to_thread(self._describe_loss, digest)
        try:
            async with self._open_source(record.source) as folder:
                report = await self.check(folder)
                report.raise_for_problems()
                if report.facts.digest != digest:
                    raise LifecycleError(
                        f"{lost}, and its source {record.source!a} holds another version now "
                        f"({(report.facts.digest or 'none')[:8]}); load that one, or this one again"
                    )
                path = await self.publish(folder, digest)
        except AdapterError as error:
            raise LifecycleError(
                f"{lost}, and it could not be fetched again from {record.source!a}: {error}"
            ) from error
        logger.info("adapter %s: fetched from %a", record.version, record.source)
        return path

    def _hold_all(self, digests: Sequence[str]) -> list[Hold]:
        holds: list[Hold] = []
        try:
            holds.extend(map(self._store.hold, digests))
        except BaseException:
            for hold in holds:
                hold.release()
            raise
        return holds

    def _not_wanted(self, taking: asyncio.Task[list[Hold]]) -> None:
        if not taking.cancelled() and taking.exception() is None:
            self._release(taking.result())

    def _release(self, holds: Sequence[Hold]) -> None:
        task = asyncio.create_task(asyncio.to_thread(_release_all, holds), name="let go of files")
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    def _describe_loss(self, digest: str) -> str:
        try:
            self._store.path(digest)
        except AdapterNotFoundError:
            return "its files are not in this server's store"
        return "its files in the store are damaged"


def _release_all(holds: Sequence[Hold]) -> None:
    for hold in holds:
        hold.release()
