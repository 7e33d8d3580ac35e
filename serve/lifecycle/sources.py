"""Where adapters come from: a folder below the root, or a remote store whose files are fetched through fsspec.

Only what is below an allowed URL is read. Sizes are looked at before and counted while the bytes come. Credentials
are the store library's own business (environment, instance role); what such a library says of a failure can hold
them, and is never repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.artefact import KNOWN_NAMES, WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterFetchError, AdapterSourceError
from adapters.source import (
    REMOTE_PACKAGES,
    RemoteSource,
    is_remote,
    parse_remote,
    resolve_remote,
    resolve_source,
)
from adapters.store.disk import store_errors
from adapters.store.store import AdapterStore
from bases.errors import HotswapError
from serve.errors import BodyTooLargeError, BusyError
from serve.lifecycle.adapter_tar import file_limits
from serve.lifecycle.staging import staging_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

logger = logging.getLogger("hotswap.adapters")

MAX_FETCHES = 4  # each holds up to a whole adapter on disk
CHUNK_BYTES = 4 * 1024 * 1024
_RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What one fetch may take."""

    max_adapter_bytes: int  # of the weights
    total_seconds: float


class Sources:
    """Fetches for one gateway into its store's staging folders. Belongs to one event loop."""

    def __init__(
        self,
        store: AdapterStore,
        root: Path,
        allowed: Sequence[str],
        limits: SourceLimits,
        *,
        protocols: Iterable[str] = tuple(REMOTE_PACKAGES),
    ) -> None:
        """`root`: folder that adapters may be loaded from; `allowed`: URLs below which may be read.

        Raises AdapterSourceError for a URL that is malformed.
        """
        self._store = store
        self._root = root
        self._protocols = tuple(protocols)
        self._allowed = [parse_remote(prefix, protocols=self._protocols) for prefix in allowed]
        self._limits = limits
        self._files = file_limits(limits.max_adapter_bytes)
        self._fetches = 0

    def check(self, text: str) -> RemoteSource:
        """The place that `text` names. Raises AdapterSourceError."""
        return resolve_remote(text, self._allowed, protocols=self._protocols)

    @contextlib.asynccontextmanager
    async def open(self, text: str) -> AsyncIterator[Path]:
        """A folder with the adapter's files that `text` names, for the length of the block.

        Raises AdapterSourceError, AdapterFetchError, BodyTooLargeError, BusyError, AdapterStoreError.
        """
        if not is_remote(text):
            yield await asyncio.to_thread(resolve_source, text, [self._root])
            return
        async with self._fetched(self.check(text)) as folder:
            yield folder

    @contextlib.asynccontextmanager
    async def _fetched(self, source: RemoteSource) -> AsyncIterator[Path]:
        if self._fetches >= MAX_FETCHES:
            raise BusyError(
                f"{self._fetches} adapters are being fetched already; try again in {_RETRY_AFTER_SECONDS} s",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._fetches += 1
        try:
            async with staging_folder(self._store) as folder:
                await self._fill(folder, source)
                yield folder
        finally:
            self._fetches -= 1

    async def _fill(self, folder: Path, source: RemoteSource) -> None:
        fetch = _Fetch(source, folder, self._files, time.monotonic() + self._limits.total_seconds)
        started = time.perf_counter()
        running = asyncio.ensure_future(asyncio.to_thread(fetch.run))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            fetch.stop.set()
            await asyncio.wait({running})
            running.exception()
            raise
        logger.info("fetched %s: %d bytes in %.2f s", source, fetch.num_bytes, time.perf_counter() - started)


class _Fetch:
    """One fetch, in a thread of its own."""

    def __init__(
        self, source: RemoteSource, folder: Path, limits: Mapping[str, int], deadline: float
    ) -> None:
        self.stop = threading.Event()
        self.num_bytes = 0
        self._source = source
        self._folder = folder
        self._limits = limits
        self._deadline = deadline

    def run(self) -> None:
        store = _filesystem_class(self._source.protocol)
        try:
            # No instance and no listing from before: what is there now counts.
            files = store(skip_instance_cache=True, use_listings_cache=False)
            sizes = {name: size for name in KNOWN_NAMES if (size := self._size(files, name)) is not None}
            if CONFIG_NAME not in sizes and WEIGHTS_NAME not in sizes:
                raise AdapterSourceError(
                    f"There is no adapter at {self._source}: neither {CONFIG_NAME} nor {WEIGHTS_NAME}. "
                    "Check the URL."
                )
            for name in sizes:
                self._copy(files, name)
        except (HotswapError, MemoryError):
            raise
        except PermissionError:
            raise AdapterSourceError(
                f"The store refuses to give {self._source} to this server. See that the server's credentials may "
                "read it."
            ) from None
        except Exception as error:  # noqa: BLE001 - the boundary to the store library
            raise AdapterFetchError(
                f"Fetching {self._source} failed ({type(error).__name__}). See that the store answers, and ask "
                "again."
            ) from None

    def _size(self, files: AbstractFileSystem, name: str) -> int | None:
        """Bytes of one file, -1 where the store does not say; None: it is not there."""
        self._check_time()
        try:
            info: dict[str, Any] = files.info(f"{self._source}/{name}")
        except FileNotFoundError:
            return None
        if info.get("type") != "file":
            raise AdapterSourceError(f"{name} at {self._source} is no file.")
        size = info.get("size")
        if isinstance(size, int) and size > self._limits[name]:
            raise self._too_large(name)
        return size if isinstance(size, int) else -1

    def _copy(self, files: AbstractFileSystem, name: str) -> None:
        count = 0
        with files.open(f"{self._source}/{name}", "rb") as remote:
            with store_errors("keep what was fetched"):
                file = (self._folder / name).open("xb")
            with file:
                while chunk := remote.read(CHUNK_BYTES):
                    self._check_time()
                    count += len(chunk)
                    if count > self._limits[name]:
                        raise self._too_large(name)
                    with store_errors("keep what was fetched"):
                        file.write(chunk)
        self.num_bytes += count

    def _check_time(self) -> None:
        if self.stop.is_set() or time.monotonic() > self._deadline:
            raise AdapterFetchError(
                f"{self._source} was not fetched within the time for it (--upload-seconds)."
            )

    def _too_large(self, name: str) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"{name} at {self._source} has more than {self._limits[name]} bytes, the most that is taken",
            param="source",
        )


def check_packages(allowed: Iterable[str]) -> None:
    """Raises AdapterSourceError when the package of a store that may be read from is not installed."""
    for protocol in dict.fromkeys(parse_remote(prefix).protocol for prefix in allowed):
        _filesystem_class(protocol)


def _filesystem_class(protocol: str) -> type[AbstractFileSystem]:
    import fsspec

    try:
        found: type[AbstractFileSystem] = fsspec.get_filesystem_class(protocol)
    except ImportError:
        package = REMOTE_PACKAGES.get(protocol, protocol)
        raise AdapterSourceError(
            f"{protocol}:// needs the package {package}, which is not installed. Install it where the server runs: "
            f"pip install {package}."
        ) from None
    return found
