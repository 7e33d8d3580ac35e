"""Writes prepared data as a folder that `read_examples` and `hotswap train` take as it is."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from adapters.data.content import to_line
from adapters.data.prepare import PreparedData
from adapters.data.readers.formats import REPORT_NAME
from adapters.data.settings import DataSettings
from adapters.data.split_name import Split
from adapters.errors import DataError
from bases.disk import check_writable


def check_free(folder: Path) -> None:
    """Raise DataError for a folder that holds something or cannot be made, and for what is no folder."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise DataError(f"{folder}: the folder is not empty, and nothing is overwritten; name a new one.")
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder}: there is a file of that name; name a new folder.")
        check_writable(folder.parent)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); name another folder.") from None


def write_prepared(prepared: PreparedData, folder: Path, settings: DataSettings) -> dict[Split, Path]:
    """Write train, validation and test (those that hold examples) as JSON lines, and the funnel beside them.

    The folder appears whole or not at all. Returns the data files by split. Raises DataError.
    """
    check_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            names = _write_into(half, prepared, settings)
            half.chmod(0o755)
            half.rename(
                folder
            )  # takes the place of an empty folder, and fails on one that was filled meanwhile
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); name another folder.") from None
    return {split: folder / name for split, name in names.items()}


def _write_into(folder: Path, prepared: PreparedData, settings: DataSettings) -> dict[Split, str]:
    names: dict[Split, str] = {}
    for split, examples in prepared.splits.items():
        if examples:
            names[split] = f"{split}.jsonl"
            with (folder / names[split]).open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(to_line(example) + "\n" for example in examples)
    report = {
        "fingerprint": prepared.fingerprint,
        "examples": {split: len(examples) for split, examples in prepared.splits.items()},
        "funnel": prepared.funnel.to_dicts(),
        "warnings": list(prepared.warnings),
        "settings": settings.model_dump(mode="json"),
    }
    text = json.dumps(report, ensure_ascii=False, indent=2)
    (folder / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
    return names
