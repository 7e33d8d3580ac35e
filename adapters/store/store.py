"""The store: one immutable folder per version, named by its digest, from which the engine loads.

An adapter is copied in before it is loaded, so the file that was checked is the file that answers, whatever
happens to the folder it came from. A version is copied to a hidden folder, its digest computed again from the
copy, and put in place by one rename; a reader sees a whole version or none. Several threads and processes may
use one store. Of two folders with the same digest the first one published stays, with its manifest and probe.

Who needs a version holds it (holds.py), and one that anybody holds is not removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from enum import StrEnum
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
from adapters.errors import AdapterChangedError, AdapterFileError, AdapterNotFoundError
from adapters.name import parse_digest
from adapters.store.byte_locks import NO_LOCKS_ERRORS, ByteLocks
from adapters.store.disk import READ_ONLY_ERRORS, store_errors
from adapters.store.holds import Hold, Holds
from adapters.store.staging import STALE_AFTER_SECONDS, Staging
from bases.disk import sync_names

LOCK_FILE = "locks"
# Files that say something about an adapter and are not part of its digest.
DESCRIBING_NAMES = (MANIFEST_NAME, PROBE_NAME)
MAX_DESCRIBING_BYTES = 1024 * 1024
WRITE_WAIT_SECONDS = 600.0  # while another process copies the same version


class Removal(StrEnum):
    """What came of removing a version."""

    GONE = "gone"
    ABSENT = "absent"  # it was not there
    WANTED = "wanted"  # somebody wants it after all
    HELD = "held"  # a process needs it still, here or elsewhere


class AdapterStore:
    """Versions kept below `root`, which is made when it does not exist.

    Sent to another process it is the same store, without what this one holds in it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock_file = root / LOCK_FILE
        self._holds = Holds(self._lock_file)
        self._staging = Staging(root, self._lock_file)
        with store_errors("make the store's folder"):
            root.mkdir(parents=True, exist_ok=True)

    def __reduce__(self) -> tuple[type[AdapterStore], tuple[Path]]:
        return AdapterStore, (self._root,)

    def close(self) -> None:
        """Let go of all holds and staging folders of this process. Idempotent."""
        self._holds.close()
        self._staging.release()

    def hold(self, digest: str) -> Hold:
        """Keep a version from being removed until the hold is released; it need not be there yet.

        Taken before a version is published or looked for, it lets what is found stay. Raises AdapterStoreError.
        """
        return self._holds.take(parse_digest(digest))

    def publish(self, folder: Path, digest: str) -> Path:
        """Copy the checked adapter in `folder` into the store and return the version's folder.

        `digest` is the one that the check reported. Publishing a version again returns what is there, mended
        when it is damaged. Raises AdapterChangedError when the files are not those that were checked, and
        AdapterStoreError when the copy cannot be made.
        """
        destination = self._root / parse_digest(digest)
        with store_errors("keep a version"), self._writing(digest):
            if self.verify(digest):
                return destination
            with self._staging.folder() as copy:
                _copy(folder, copy)
                found = digest_of(copy)
                if found != digest:
                    raise AdapterChangedError(
                        f"The adapter changed after it was checked: its digest was {digest}, the copy's is "
                        f"{found or 'not computable'}. Check and load it again when nothing writes to it."
                    )
                with store_errors("put the version in place"):
                    self._put(copy, destination)
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
            with store_errors("renew a version's manifest and probe"), self._writing(digest):
                version.chmod(0o755)
                try:
                    for name in changed:
                        if name not in given.files:
                            (version / name).unlink(missing_ok=True)
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

    def remove(self, digest: str, *, wanted: Callable[[], bool] = lambda: False) -> Removal:
        """Delete a version that nobody holds and nobody wants. What was loaded from it stays loaded.

        `wanted` is asked while nobody can begin to hold the version: who wants it says so before it lets go of its
        hold. Raises AdapterStoreError, and what `wanted` raises.
        """
        folder = self._root / parse_digest(digest)
        with store_errors("remove a version"):
            if not folder.is_dir():
                return Removal.ABSENT
            with self._alone(digest) as alone:
                if not alone:
                    return Removal.HELD
                if wanted():
                    return Removal.WANTED
                grave = self._bury(folder)
            if grave is None:
                return Removal.ABSENT
            self._staging.close(grave)
        return Removal.GONE

    def list(self) -> list[str]:
        """The digests of all versions in the store, sorted."""
        with store_errors("list the store"):
            return sorted(
                entry.name for entry in self._root.iterdir() if len(entry.name) == 64 and entry.is_dir()
            )

    def clean(self, *, stale_after_seconds: float = STALE_AFTER_SECONDS) -> int:
        """Delete what died half-way; return how many folders went. As Staging.clean."""
        return self._staging.clean(stale_after_seconds=stale_after_seconds)

    def open_staging(self) -> Path:
        """A new folder inside the store to receive an adapter in, to be published from there.

        `clean` removes it when its process has ended. Raises AdapterStoreError.
        """
        return self._staging.open()

    def close_staging(self, folder: Path) -> None:
        """Delete a folder of `open_staging` and what is in it."""
        self._staging.close(folder)

    def _put(self, copy: Path, destination: Path) -> None:
        for file in copy.iterdir():
            file.chmod(0o444)
        damaged = self._bury(destination)
        try:
            copy.rename(destination)
        except OSError as error:
            # Where nothing can be locked, somebody else may have published the same bytes first.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        finally:
            if damaged is not None:
                self._staging.close(damaged)
        destination.chmod(0o555)
        sync_names(self._root)

    def _bury(self, folder: Path) -> Path | None:
        """Move a version out of sight in one step, so that nobody sees half of it; None where there is none."""
        if not folder.is_dir():
            return None
        grave = self._staging.open()
        try:
            folder.rename(grave)  # onto an empty folder
        except FileNotFoundError:
            self._staging.close(grave)
            return None
        return grave

    @contextlib.contextmanager
    def _alone(self, digest: str) -> Iterator[bool]:
        """Whether nobody holds the version, for the length of the block; without locks nobody knows."""
        with ByteLocks(self._lock_file) as locks:
            try:
                alone = locks.take(digest, alone=True)
            except OSError as error:
                if error.errno not in NO_LOCKS_ERRORS:
                    raise
                alone = False
            yield alone

    @contextlib.contextmanager
    def _writing(self, digest: str) -> Iterator[None]:
        """One at a time writes into a version, and nobody removes it meanwhile; where that can be seen to."""
        with contextlib.ExitStack() as stack:
            try:
                locks = stack.enter_context(ByteLocks(self._lock_file))
                locks.wait(digest, alone=False, seconds=WRITE_WAIT_SECONDS)
                locks.wait(f"write {digest}", alone=True, seconds=WRITE_WAIT_SECONDS)
            except OSError as error:  # in a store that is read-only, what is there can be used
                if error.errno not in READ_ONLY_ERRORS | NO_LOCKS_ERRORS:
                    raise
            yield


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
