"""Adapters that arrive in a request: received into a folder of their own, which is gone when the block ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.store.disk import store_errors
from adapters.store.store import AdapterStore
from serve.errors import BodyTimeoutError, BodyTooLargeError, BusyError
from serve.lifecycle.adapter_tar import MAX_FRAME_BYTES, AdapterTarReader, file_limits
from serve.lifecycle.gunzip import Gunzip
from serve.lifecycle.staging import run_whole, staging_folder

MAX_UPLOADS = 4  # each holds up to a whole adapter on disk
_RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one upload may take."""

    max_adapter_bytes: int  # of the weights
    idle_seconds: float  # without a byte
    total_seconds: float


@dataclass(frozen=True, slots=True)
class Upload:
    """What arrived: the folder with its files, and a digest of the body as it was sent."""

    folder: Path
    sha256: str


class Uploads:
    """Receives uploads of one gateway into its store's staging folders. Belongs to one event loop."""

    def __init__(self, store: AdapterStore, limits: UploadLimits) -> None:
        self._store = store
        self._limits = limits
        self._files = file_limits(limits.max_adapter_bytes)
        self._max_body_bytes = sum(self._files.values()) + MAX_FRAME_BYTES
        self._running = 0

    @contextlib.asynccontextmanager
    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        content_length: int | None,
        check_open: Callable[[], None],
        gzipped: bool = False,
    ) -> AsyncIterator[Upload]:
        """A folder with the files of the tar that `chunks` hold; removed when the block ends, however it ends.

        `check_open` is called before each chunk and raises when no more work is taken. Raises BusyError,
        BodyTooLargeError, BodyTimeoutError, UploadRefusedError, AdapterStoreError and what `chunks` raises.
        """
        if content_length is not None and content_length > self._max_body_bytes:
            raise self._too_large()
        if self._running >= MAX_UPLOADS:
            raise BusyError(
                f"{self._running} adapters are being uploaded already; try again in {_RETRY_AFTER_SECONDS} s",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._running += 1
        try:
            async with staging_folder(self._store) as folder:
                sha256 = hashlib.sha256()
                unpacker = Gunzip(self._max_body_bytes) if gzipped else None
                await self._fill(folder, _Body(sha256, unpacker), chunks, check_open)
                yield Upload(folder, sha256.hexdigest())
        finally:
            self._running -= 1

    async def _fill(
        self, folder: Path, body: _Body, chunks: AsyncIterator[bytes], check_open: Callable[[], None]
    ) -> None:
        total = 0
        try:
            async with asyncio.timeout(self._limits.total_seconds):
                with AdapterTarReader(folder, self._files) as reader:
                    while (chunk := await self._next(chunks)) is not None:
                        check_open()
                        total += len(chunk)
                        if total > self._max_body_bytes:
                            raise self._too_large()
                        await run_whole(body.feed, reader, chunk)
                    await run_whole(body.finish, reader)
        except TimeoutError:
            raise BodyTimeoutError(
                f"the upload was not complete after {self._limits.total_seconds:g} s"
            ) from None

    async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                return await anext(chunks, None)
        except TimeoutError:
            raise BodyTimeoutError(
                f"the upload brought nothing for {self._limits.idle_seconds:g} s"
            ) from None

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"the upload is larger than {self._max_body_bytes} bytes, the largest adapter that is accepted "
            "(--max-adapter-mib)"
        )


class _Body:
    """From the bytes of a body to those of its tar, in a thread."""

    def __init__(self, sha256: Any, unpacker: Gunzip | None) -> None:
        self._sha256 = sha256
        self._unpacker = unpacker

    def feed(self, reader: AdapterTarReader, data: bytes) -> None:
        self._sha256.update(data)
        for piece in self._unpacker.feed(data) if self._unpacker is not None else (data,):
            _write(reader, piece)

    def finish(self, reader: AdapterTarReader) -> None:
        if self._unpacker is not None:
            for piece in self._unpacker.finish():
                _write(reader, piece)
        reader.finish()


def _write(reader: AdapterTarReader, data: bytes) -> None:
    with store_errors("write an upload"):
        reader.feed(data)
