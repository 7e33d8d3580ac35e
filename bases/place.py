"""A folder that either does not exist or is complete: built beside its place and moved there in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bases.disk import disk_errors, why_unwritten
from bases.errors import BaseConversionError
from bases.process_lock import only_process
from bases.progress import Progress, log_progress


@contextmanager
def made_in_place(
    folder: Path, *, replace: bool = False, progress: Progress = log_progress
) -> Iterator[Path]:
    """An empty folder beside `folder` that becomes `folder` when the block ends, and goes where it raises.

    What killed processes left beside it is removed first. With `replace` a folder that exists is replaced, and
    stays as it is where the block raises. Raises BaseConversionError where `folder` exists otherwise, where another
    process makes it, and where its place cannot be written, the block's own OSErrors included.
    """
    if not replace:
        _refuse_existing(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _only_process(folder):
            for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
                progress("Removing what an interrupted run left behind")
                shutil.rmtree(leftover)
            partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
            partial.mkdir()
            try:
                with disk_errors():
                    yield partial
                settle(partial)
                _move(partial, folder, replace=replace)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise BaseConversionError(f"{folder} cannot be written: {why_unwritten(error)}") from error


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`. Raises BaseConversionError where another process does."""

    def refuse() -> None:
        raise BaseConversionError(
            f"Another process is making {folder}. Wait for it, or name another folder."
        ) from None

    lock_file = folder.parent / f".{folder.name}.lock"
    with only_process(lock_file, refuse):
        try:
            yield
        finally:
            # Nobody waits for it: who comes now makes a new one, who came before was refused.
            lock_file.unlink(missing_ok=True)


def _move(partial: Path, folder: Path, *, replace: bool) -> None:
    if replace and folder.is_dir():
        replaced = folder.parent / f".{folder.name}.partial-replaced"
        folder.rename(replaced)
        partial.rename(folder)
        shutil.rmtree(replaced)
    else:
        _refuse_existing(folder)
        partial.rename(folder)
    flush(folder.parent)


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise BaseConversionError(f"{folder} exists, and nothing is overwritten. Name another folder.")


def settle(folder: Path) -> None:
    """Make every file readable by all (safetensors writes 0600) and flush it, then the folder, to disk."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        flush(path)
    folder.chmod(0o755)
    flush(folder)


def flush(path: Path) -> None:
    """Write a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
