"""Folders written by `save_to_disk` of the `datasets` library: one data set, or one for each split."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.data.example import Origin
from adapters.data.readers.row import Row
from adapters.data.split_name import Split, split_of
from adapters.errors import DataError

_DICT_NAME, _STATE_NAME = "dataset_dict.json", "state.json"


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets.load_from_disk` reads this folder."""
    return (folder / _DICT_NAME).is_file() or (folder / _STATE_NAME).is_file()


def read_saved_dataset(folder: Path) -> dict[Split | None, Iterator[Row]]:
    """Rows of every split; the key is None for a data set without splits.

    Origin is the folder's (or split's) name and the row from 1. Class labels come as their names.
    Raises DataError for a folder that cannot be read, and for splits whose names say nothing.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder.name}: the saved data set cannot be read ({_reason(error)}); write it anew with "
            "save_to_disk, or export it as JSONL (`dataset.to_json`)."
        ) from None
    if not isinstance(loaded, datasets.DatasetDict):
        return {None: _rows(loaded, folder.name)}
    parts: dict[Split | None, Iterator[Row]] = {}
    for name, part in loaded.items():
        split = split_of(str(name))
        if split is None or split in parts:
            raise DataError(
                f"{folder.name}: the saved data set has the splits {', '.join(map(repr, loaded))}, of which "
                f"{name!r} cannot be told to be train, validation or test; save the one that you mean on its own."
            )
        parts[split] = _rows(part, f"{folder.name}/{name}")
    return parts


def _rows(dataset: Any, name: str) -> Iterator[Row]:
    class_names = {
        key: feature.names for key, feature in dataset.features.items() if hasattr(feature, "names")
    }
    rows = iter(dataset)
    for number in itertools.count(1):
        try:
            row = dict(next(rows))
        except StopIteration:
            return
        except (
            ImportError,
            OSError,
            ValueError,
            TypeError,
        ) as error:  # a broken file, or a picture in a column
            raise DataError(
                f"{name}:{number}: the row cannot be read ({_reason(error)}); keep the columns of text alone "
                "(select_columns) and save the data set anew."
            ) from None
        for key, names in class_names.items():
            index = row[key]  # -1 is how the library says "no class"
            row[key] = names[index] if isinstance(index, int) and index >= 0 else None
        yield Row(Origin(name, number), row)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
