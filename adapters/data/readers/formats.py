"""Which reader takes which file, and which files of a folder are data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from adapters.data.problems import BadLines
from adapters.data.readers.csv_file import read_csv
from adapters.data.readers.json_file import read_json
from adapters.data.readers.jsonl import read_jsonl
from adapters.data.readers.parquet import read_parquet
from adapters.data.readers.row import Reader, ReadLimits, Row
from adapters.data.readers.saved_dataset import is_saved_dataset, read_saved_dataset
from adapters.data.split_name import Split, split_of
from adapters.errors import DataError

READERS: Final[dict[str, Reader]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
REPORT_NAME = "data_report.json"
"""Written beside prepared data; a report, not data."""
_NO_DATA = frozenset(
    {REPORT_NAME, "dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json"}
)


def read_rows(path: Path, bad: BadLines, limits: ReadLimits) -> dict[Split | None, Iterator[Row]]:
    """Rows of a file or folder by split; the key is None where nothing says that it is split.

    Nothing is read before the iterators are. Raises DataError for what is missing, empty or of no known kind.
    """
    if not path.exists():
        near = _similar_file(path)
        hint = f"; did you mean {near}?" if near else "; check the path"
        raise DataError(f"{path}: there is no such file or folder{hint}")
    if path.is_file():
        return {None: _read_files((path,), bad, limits)}
    if not path.is_dir():
        # The reader looks at the first bytes before it goes through the rows, and the ending names the kind.
        raise DataError(
            f"{path}: this is a pipe or a device, not a file or a folder; write the examples into a file first, "
            "such as data.jsonl."
        )
    if is_saved_dataset(path):
        return read_saved_dataset(path)
    return {split: _read_files(files, bad, limits) for split, files in _find_files(path).items()}


def _read_files(paths: tuple[Path, ...], bad: BadLines, limits: ReadLimits) -> Iterator[Row]:
    readers = [_reader_for(path) for path in paths]

    def rows() -> Iterator[Row]:
        for path, reader in zip(paths, readers, strict=True):
            if path.stat().st_size == 0:
                raise DataError(f"{path.name}: the file is empty; it must hold at least one example.")
            try:
                yield from reader(path, bad, limits)
            except PermissionError:
                raise DataError(f"{path}: the file may not be read; change its permissions.") from None

    return rows()


def _reader_for(path: Path) -> Reader:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path.name}: files with the ending {path.suffix or '(none)'!r} are not read; taken are "
            f"{', '.join(READERS)}, folders of them, and folders written by datasets' save_to_disk."
        )
    return reader


def _find_files(folder: Path) -> dict[Split | None, tuple[Path, ...]]:
    """Data files below a folder by the split in their name, or else in the name of the folder they are in."""
    found: dict[Split | None, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or not path.is_file() or path.name in _NO_DATA or path.suffix.lower() not in READERS:
            continue
        split = split_of(path.stem) or (split_of(inside.parts[-2]) if len(inside.parts) > 1 else None)
        found.setdefault(split, []).append(path)
    if not found:
        raise DataError(
            f"{folder}: the folder holds no data; files ending in {', '.join(READERS)} are taken."
        )
    if None in found and len(found) > 1:
        stray = found[None][0].name
        raise DataError(
            f"{folder}: some files are named after their split (train, validation, test), but {stray} is not; "
            "rename it, or name the files one by one."
        )
    parents = {path.parent for paths in found.values() for path in paths if split_of(path.stem)}
    if len(parents) > 1:
        first, second = sorted(parent.relative_to(folder) for parent in parents)[:2]
        raise DataError(
            f"{folder}: files named after splits are in {first} and in {second}, which are data sets of their own; "
            "name the folder that you mean, or both."
        )
    if None not in found and "train" not in found:
        raise DataError(f"{folder}: there is {' and '.join(map(str, found))} data, but no file named train.")
    return {split: tuple(paths) for split, paths in found.items()}


def _similar_file(path: Path) -> Path | None:
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return None
    names = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1, cutoff=0.7)
    return path.parent / names[0] if names else None
