"""The files of versions: checked before they are kept, verified before they are loaded, fetched again when lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from adapters.check import check_adapter
from adapters.errors import AdapterError, AdapterNotFoundError
from adapters.registry.records import VersionRecord
from adapters.report import CheckReport
from adapters.source import resolve_source
from adapters.store import AdapterStore
from serve.errors import LifecycleError
from serve.lifecycle.file_work import FileWork
from serve.lifecycle.rules import AdapterRules

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
        # Two names may share one folder of the store: none is written while another's leftovers are removed.
        self.lock = asyncio.Lock()
        self._store = store
        self._rules = rules
        self._open_source = open_source
        self._work = work

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
        async with self.lock:
            return await self._work.run(self._store.publish, folder, digest)

    async def renew(self, folder: Path, digest: str) -> None:
        """Let the stored manifest and probe be those of `folder`."""
        async with self.lock:
            await self._work.run(self._store.renew, folder, digest)

    async def verify(self, digest: str) -> bool:
        """Whether a version is in the store, and undamaged."""
        return await self._work.run(self._store.verify, digest)

    async def remove(self, digest: str) -> None:
        """Delete a version's files. Called while the lock is held."""
        await self._work.run(self._store.remove, digest)

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

    def _describe_loss(self, digest: str) -> str:
        try:
            self._store.path(digest)
        except AdapterNotFoundError:
            return "its files are not in this server's store"
        return "its files in the store are damaged"
