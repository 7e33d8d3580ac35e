"""A folder that either does not exist or is complete: built beside its place and moved there in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bases.errors import BaseConversionError
from bases.progress import Progress, log_progress


@contextmanager
def made_in_place(folder: Path, *, progress: Progress = log_progress) -> Iterator[Path]:
    """An empty folder beside `folder` that becomes `folder` when the block ends, and goes where it raises.

    What killed processes left beside it is removed first. Raises BaseConversionError where `folder` exists, where
    another process makes it, and where its place cannot be written.
    """
    prefix = f".{folder.name}.partial-"
    _refuse_existing(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f"{prefix}*"):
            owner = leftover.name.removeprefix(prefix)
            if owner.isdigit() and Path(f"/proc/{owner}").exists():
                raise BaseConversionError(
                    f"Process {owner} is making {folder}. Wait for it, or name another folder."
                )
            progress("Removing what an interrupted run left behind")
            shutil.rmtree(leftover)
        partial = folder.parent / f"{prefix}{os.getpid()}"
        partial.mkdir()
        try:
            yield partial
            _settle(partial)
            _refuse_existing(folder)
            partial.rename(folder)
            _flush(folder.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise BaseConversionError(f"{folder} cannot be written: {error}") from error


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise BaseConversionError(f"{folder} exists, and nothing is overwritten. Name another folder.")


def _settle(folder: Path) -> None:
    """Make every file readable by all (safetensors writes 0600) and flush it, then the folder, to disk."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        _flush(path)
    folder.chmod(0o755)
    _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
