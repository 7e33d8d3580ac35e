from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from adapters.data.problems import BadLines
from adapters.data.readers.formats import read_rows
from adapters.data.readers.row import ReadLimits
from adapters.errors import DataError

LABELLED = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["low", "high"])}
)


def rows_of(path: Path):
    found = read_rows(path, BadLines(), ReadLimits(1000))
    return {split: [(str(row.origin), dict(row.values)) for row in rows] for split, rows in found.items()}


def test_a_saved_data_set_gives_its_rows_with_the_names_of_its_classes(tmp_path):
    saved = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=LABELLED)
    saved.save_to_disk(tmp_path / "set")
    assert rows_of(tmp_path / "set") == {
        None: [
            ("set:1", {"text": "a", "label": "low"}),
            ("set:2", {"text": "b", "label": "high"}),
            ("set:3", {"text": "c", "label": None}),
        ]
    }


def test_saved_splits_are_the_splits(tmp_path):
    parts = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "valid", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    assert rows_of(tmp_path / "set") == {
        "train": [("set/train:1", {"text": "train"})],
        "validation": [("set/valid:1", {"text": "valid"})],
        "test": [("set/test:1", {"text": "test"})],
    }


def test_splits_of_unknown_names_are_refused(tmp_path):
    parts = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "extra")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"set: .*'train', 'extra'.*'extra' cannot be told"):
        rows_of(tmp_path / "set")


def test_a_column_that_cannot_be_read_is_named_by_its_row(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "picture": datasets.Image()})
    pictures = datasets.Dataset.from_dict(
        {"text": ["a"], "picture": [{"bytes": b"no picture", "path": None}]}, features=features
    )
    pictures.save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"^set:1: the row cannot be read .*select_columns"):
        rows_of(tmp_path / "set")


@pytest.mark.parametrize("spoil", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_broken_saved_data_set_is_refused(tmp_path, spoil):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "set")
    (tmp_path / "set" / spoil).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"set: the saved data set cannot be read .*save_to_disk"):
        rows_of(tmp_path / "set")
