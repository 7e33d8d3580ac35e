"""The store: one immutable folder per version, named by its digest, from which the engine loads.

An adapter is copied in before it is loaded, so the file that was checked is the file that answers, whatever
happens to the folder it came from. A version is copied to a hidden folder, its digest computed again from the
copy, and put in place by one rename; a reader sees a whole version or none. Several threads and processes may
use one store. Of two folders with the same digest the first one published stays, with its manifest and probe.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from adapters.artefact import (
    KNOWN_NAMES,
    MANIFEST_NAME,
    PROBE_NAME,
    WEIGHTS_NAME,
    AdapterArtefact,
    AdapterFile,
    read_artefact,
    read_weights_header,
)
from adapters.config import CONFIG_NAME, MAX_CONFIG_BYTES, parse_config
from adapters.digest import compute_digest
from adapters.errors import (
    AdapterChangedError,
    AdapterFileError,
    AdapterNotFoundError,
    AdapterStoreError,
    AdapterStoreFullError,
    AdapterStoreReadOnlyError,
)
from adapters.name import parse_digest

# A copy that nobody has finished for this long belongs to a process that died.
STALE_AFTER_SECONDS = 3600.0
# Files that say something about an adapter and are not part of its digest.
DESCRIBING_NAMES = (MANIFEST_NAME, PROBE_NAME)
MAX_DESCRIBING_BYTES = 1024 * 1024
_UNFINISHED_PREFIX = ".unfinished-"


class AdapterStore:
    """Versions kept below `root`, which is made when it does not exist."""

    def __init__(self, root: Path) -> None:
        self._root = root
        with store_errors("make the store's folder"):
            root.mkdir(parents=True, exist_ok=True)

    def publish(self, folder: Path, digest: str) -> Path:
        """Copy the checked adapter in `folder` into the store and return the version's folder.

        `digest` is the one that the check reported. Publishing a version again returns what is there, mended
        when it is damaged. Raises AdapterChangedError when the files are not those that were checked, and
        AdapterStoreError when the copy cannot be made.
        """
        destination = self._root / parse_digest(digest)
        if destination.is_dir():
            if self.verify(digest):
                return destination
            self.remove(digest)
        with self._unfinished_folder() as copy:
            self._copy(folder, copy)
            found = digest_of(copy)
            if found != digest:
                raise AdapterChangedError(
                    f"The adapter changed after it was checked: its digest was {digest}, the copy's is "
                    f"{found or 'not computable'}. Check and load it again when nothing writes to it."
                )
            with store_errors("put the version in place"):
                for file in copy.iterdir():
                    file.chmod(0o444)
                try:
                    copy.rename(destination)
                except OSError as error:
                    # Somebody else published the same bytes first.
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                destination.chmod(0o555)
                _sync_folder(self._root)
        return destination

    def renew(self, folder: Path, digest: str) -> None:
        """Let a version's manifest and probe be those of `folder`, another copy of the same adapter.

        Raises AdapterChangedError, AdapterNotFoundError, AdapterStoreError.
        """
        version = self.path(digest)
        with read_artefact(folder) as given, read_artefact(version) as kept:
            changed = [name for name in DESCRIBING_NAMES if _content(given, name) != _content(kept, name)]
            if not changed:
                return
            with store_errors("renew a version's manifest and probe"):
                version.chmod(0o755)
                try:
                    for name in changed:
                        if name not in given.files:
                            (version / name).unlink()
                            continue
                        partial = version / f".{name}.{os.getpid()}"
                        _copy_file(given.files[name], partial)
                        partial.chmod(0o444)
                        partial.replace(version / name)
                finally:
                    version.chmod(0o555)

    def path(self, digest: str) -> Path:
        """The folder of a version; raise AdapterNotFoundError when it is not in the store."""
        folder = self._root / parse_digest(digest)
        if not folder.is_dir():
            raise AdapterNotFoundError(f"Version {digest[:8]} is not in the store. Load the adapter again.")
        return folder

    def verify(self, digest: str) -> bool:
        """Whether the version is there and its bytes still have its digest. Reads all of them."""
        return digest_of(self._root / parse_digest(digest)) == digest

    def remove(self, digest: str) -> bool:
        """Delete a version; return False when it was not there. What was loaded from it stays loaded."""
        folder = self._root / parse_digest(digest)
        with store_errors("remove a version"):
            if not folder.is_dir():
                return False
            grave = Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=self._root))
            try:
                folder.rename(grave)  # onto an empty folder: one step, and nobody sees half a version
            except FileNotFoundError:
                grave.rmdir()
                return False
            _delete(grave)
        return True

    def list(self) -> list[str]:
        """The digests of all versions in the store, sorted."""
        with store_errors("list the store"):
            return sorted(
                entry.name for entry in self._root.iterdir() if len(entry.name) == 64 and entry.is_dir()
            )

    def clean(self, *, stale_after_seconds: float = STALE_AFTER_SECONDS) -> int:
        """Delete what died half-way longer ago than that; return how many folders went.

        What cannot be deleted stays: a store that is not writable still serves.
        """
        removed = 0
        with store_errors("clean the store"):
            for entry in self._root.iterdir():
                if not entry.name.startswith(_UNFINISHED_PREFIX):
                    continue
                try:
                    age_seconds = time.time() - entry.stat().st_mtime
                except FileNotFoundError:  # its owner finished just now
                    continue
                if age_seconds >= stale_after_seconds:
                    with contextlib.suppress(OSError):
                        _delete(entry)
                        removed += 1
        return removed

    def open_staging(self) -> Path:
        """A new folder inside the store to receive an adapter in, to be published from there.

        `clean` removes it when nobody has closed it. Raises AdapterStoreError.
        """
        with store_errors("make a folder in the store"):
            return Path(tempfile.mkdtemp(prefix=_UNFINISHED_PREFIX, dir=self._root))

    @staticmethod
    def close_staging(folder: Path) -> None:
        """Delete a folder of `open_staging` and what is in it."""
        with contextlib.suppress(OSError):  # what stays behind is for `clean`
            _delete(folder)

    @contextlib.contextmanager
    def _unfinished_folder(self) -> Iterator[Path]:
        folder = self.open_staging()
        try:
            yield folder
        finally:
            self.close_staging(folder)

    @staticmethod
    def _copy(folder: Path, copy: Path) -> None:
        with read_artefact(folder) as artefact:
            if artefact.problems:
                reasons = "; ".join(problem.message for problem in artefact.problems)
                raise AdapterChangedError(f"The adapter cannot be copied: {reasons}")
            for name in KNOWN_NAMES:
                if name in artefact.files:
                    _copy_file(artefact.files[name], copy / name)


def _content(artefact: AdapterArtefact, name: str) -> bytes | None:
    file = artefact.files.get(name)
    try:
        return file.read_all(max_bytes=MAX_DESCRIBING_BYTES) if file is not None else None
    except AdapterFileError as error:
        raise AdapterChangedError(str(error)) from error


def _copy_file(source: AdapterFile, path: Path) -> None:
    try:
        with store_errors(f"copy {source.name}"), path.open("wb") as target:
            for chunk in source.chunks(0, source.num_bytes):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
    except AdapterFileError as error:
        raise AdapterChangedError(str(error)) from error


def digest_of(folder: Path) -> str | None:
    """The digest of the adapter in `folder`; None where there is no readable one."""
    with read_artefact(folder) as artefact:
        if CONFIG_NAME not in artefact.files or WEIGHTS_NAME not in artefact.files:
            return None
        weights = artefact.files[WEIGHTS_NAME]
        try:
            config = parse_config(artefact.files[CONFIG_NAME].read_all(max_bytes=MAX_CONFIG_BYTES))
            return compute_digest(weights, read_weights_header(weights), config)
        except AdapterFileError:
            return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        folder.chmod(0o700)  # versions are read-only
        shutil.rmtree(folder)


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn what the file system says into an error of the store."""
    try:
        yield
    except OSError as error:
        text = f"The adapter store could not {what}: {error.strerror}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AdapterStoreFullError(
                f"{text} Free some space, or unload versions that are not used."
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise AdapterStoreReadOnlyError(f"{text} Make it writable for the server.") from error
        raise AdapterStoreError(f"{text} See whether its folder is on a healthy disk.") from error
