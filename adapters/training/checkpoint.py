"""Checkpoints that are whole: written beside, listed with sizes, put in place by one rename.

transformers writes a checkpoint file by file into its place, so a kill leaves one that looks whole. Here a folder
gets its name when everything is in it and flushed, and is taken only if every listed file has its listed size.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

CONTENTS_NAME = "contents.json"
STAGING_NAME = ".unfinished"
_FOLDER = re.compile(r"checkpoint-([0-9]+)")


def seal_checkpoint(folder: Path) -> None:
    """List the files in `folder` with their sizes and flush all of it to the disk."""
    sizes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CONTENTS_NAME:
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
            _flush(path)
    contents = folder / CONTENTS_NAME
    contents.write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")
    _flush(contents)
    _flush(folder)


def place_checkpoint(staged: Path, root: Path) -> Path:
    """Move a sealed checkpoint to its place under `root` and return it; one that is there already goes first."""
    place = root / staged.name
    if place.exists():
        shutil.rmtree(place)
    staged.rename(place)
    _flush(root)
    return place


def is_whole(folder: Path) -> bool:
    """Whether every file that the checkpoint lists is there with its size."""
    try:
        sizes = json.loads((folder / CONTENTS_NAME).read_text(encoding="utf-8"))
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def checkpoints(root: Path) -> list[tuple[int, Path]]:
    """(step, folder) of everything that is named like a checkpoint, newest last."""
    return sorted(_numbered(root))


def newest_whole(root: Path) -> tuple[Path | None, list[Path]]:
    """The newest whole checkpoint, or None, and the newer ones that were passed over because they are not."""
    broken: list[Path] = []
    for _, folder in reversed(checkpoints(root)):
        if is_whole(folder):
            return folder, broken
        broken.append(folder)
    return None, broken


def remove_old(root: Path, *, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints."""
    for _, folder in checkpoints(root)[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)


def _numbered(root: Path) -> Iterator[tuple[int, Path]]:
    if not root.is_dir():
        return
    for folder in root.iterdir():
        match = _FOLDER.fullmatch(folder.name)
        if match is not None and folder.is_dir():
            yield int(match.group(1)), folder


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
