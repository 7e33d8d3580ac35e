"""A folder that either does not exist or is complete: built beside its place and moved there in one step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bases.progress import Progress
from quantize.errors import QuantizeError
from quantize.resume import place_key


@contextmanager
def building(out: Path, *, home: Path, say: Progress) -> Iterator[Path]:
    """An empty folder beside `out` that becomes `out` when the block ends; removed where the block raises.

    What a killed process left beside `out` is removed first. Raises QuantizeError while another process builds
    the same folder, and where the place cannot be written.
    """
    from filelock import FileLock, Timeout

    locks = home / "quantize"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{place_key(out)}.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise QuantizeError(f"Another process is making {out}. Wait for it, or name another --out.") from None
    except OSError as error:
        raise QuantizeError(f"{out} cannot be made: {error}") from error
    try:
        for leftover in out.parent.glob(f".{out.name}.partial-*"):
            say("Removing what an interrupted run left behind")
            shutil.rmtree(leftover)
        partial = out.parent / f".{out.name}.partial-{os.getpid()}"
        partial.mkdir()
        try:
            yield partial
            _move(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise QuantizeError(f"{out} cannot be written: {error}") from error
    finally:
        lock.release()


def _move(partial: Path, out: Path) -> None:
    for path in partial.iterdir():
        path.chmod(0o644)  # safetensors writes 0600
        _flush(path)
    partial.chmod(0o755)
    _flush(partial)
    if out.exists():
        replaced = out.parent / f".{out.name}.partial-old"
        out.rename(replaced)
        partial.rename(out)
        shutil.rmtree(replaced)
    else:
        partial.rename(out)
    _flush(out.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
