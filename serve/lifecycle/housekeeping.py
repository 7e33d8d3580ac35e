"""What stays on disk: versions to go back to, and nothing that no name has any more.

Files that a gateway still holds stay, here or elsewhere. Whoever could not remove them looks again, and so does the
holder when it lets go: the last one removes them. What nobody could, because all were killed, goes at a start.
"""

from __future__ import annotations

import asyncio
import logging

from adapters.errors import AdapterError
from adapters.registry.records import NameRecord
from adapters.store.store import Removal
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
        self._desired = desired
        self._board = board
        self._files = files
        self._keep_versions = keep_versions
        self._tasks: set[asyncio.Task[None]] = set()
        self._left_behind: set[str] = set()  # digests that nobody wants and somebody held

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
        """Remove the files of a version unless some name has that content still.

        While a gateway holds them they stay, and `look_again` removes them later.
        """
        try:
            removal = await self._files.remove(digest, wanted=lambda: self._desired.holds_content(digest))
        except AdapterError as error:
            logger.warning("the files of version %s stay in the store: %s", digest[:8], error)
            return
        if removal is not Removal.HELD:
            self._left_behind.discard(digest)
        elif digest not in self._left_behind:
            self._left_behind.add(digest)
            logger.info("the files of version %s stay while a gateway holds them", digest[:8])

    async def look_again(self) -> None:
        """Remove what somebody held the last time."""
        for digest in sorted(self._left_behind):
            await self.drop_files(digest)

    async def sweep(self) -> None:
        """At a start: remove what names had once and no name has, left by gateways that ended before they could.

        Content that this registry has never heard of is another one's, and stays.
        """
        try:
            for digest in sorted({*await self._files.digests()} - self._desired.contents()):
                if await asyncio.to_thread(self._desired.held_content, digest):
                    await self.drop_files(digest)
        except AdapterError as error:
            logger.warning("the store was not looked through: %s", error)

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
