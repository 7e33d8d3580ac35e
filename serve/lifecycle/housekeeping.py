"""What stays on disk: versions to go back to, and nothing that no name has any more."""

from __future__ import annotations

import asyncio
import logging

from adapters.errors import AdapterError
from adapters.registry.records import NameRecord
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.desired import DesiredState, wanted
from serve.lifecycle.kept_files import KeptFiles
from serve.lifecycle.version import ManagedVersion

logger = logging.getLogger("hotswap.adapters")


class Housekeeping:
    """Removes versions and files. Belongs to one event loop. Failures are logged: nobody waits for the space."""

    def __init__(
        self,
        files: KeptFiles,
        desired: DesiredState,
        board: AdapterBoard,
        *,
        keep_versions: int,
    ) -> None:
        """The lock of `files` is held while files go, so that nobody publishes them meanwhile."""
        self._desired = desired
        self._board = board
        self._files = files
        self._keep_versions = keep_versions
        self._tasks: set[asyncio.Task[None]] = set()

    async def tidy(self, record: NameRecord) -> None:
        """Forget what is older than the newest versions of a name, but nothing that is wanted or in use."""
        kept = {
            *wanted(record),
            record.previous,
            *(managed.version.digest for managed in self._board.versions(record.name)),
            *(version.version.digest for version in record.versions[-self._keep_versions :]),
        }
        for old in record.versions:
            if old.version.digest in kept:
                continue
            try:
                await self._desired.remove(old.version)
            except AdapterError as error:
                logger.warning("version %s stays in the registry: %s", old.version, error)
                continue
            logger.info("version %s was forgotten: newer ones are kept to go back to", old.version)
            await self.drop_files(old.version.digest)

    async def drop_files(self, digest: str) -> None:
        """Remove the files of a version unless some name has that content still."""
        try:
            async with self._files.lock:
                if not await self._desired.holds_content(digest):
                    await self._files.remove(digest)
        except AdapterError as error:
            logger.warning("the files of version %s stay in the store: %s", digest[:8], error)

    def left(self, managed: ManagedVersion) -> None:
        """A version drained and the engine holds it no more: its files go when it was forgotten meanwhile."""
        version = managed.version
        if self._desired.get(version.name).get(version.digest) is None:
            task = asyncio.create_task(self.drop_files(version.digest), name=f"drop files of {version}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what is being removed."""
        await asyncio.gather(*self._tasks)
