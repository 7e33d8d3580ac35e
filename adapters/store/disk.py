"""What the disk below the store says, as errors of the store; and folders that go."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from adapters.errors import AdapterStoreError, AdapterStoreFullError, AdapterStoreReadOnlyError

READ_ONLY_ERRORS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn what the file system says into an error of the store."""
    try:
        yield
    except OSError as error:
        text = f"The adapter store could not {what}: {error.strerror}."
        if error.errno in FULL_ERRORS:
            raise AdapterStoreFullError(
                f"{text} Free some space, or unload versions that are not used."
            ) from error
        if error.errno in READ_ONLY_ERRORS:
            raise AdapterStoreReadOnlyError(f"{text} Make it writable for the server.") from error
        raise AdapterStoreError(f"{text} See whether its folder is on a healthy disk.") from error


def delete_folder(folder: Path) -> None:
    """Delete a folder of the store and what is in it; one that is gone already is no error. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        folder.chmod(0o700)  # versions are read-only
        shutil.rmtree(folder)
