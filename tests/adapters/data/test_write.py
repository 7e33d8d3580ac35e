from __future__ import annotations

import json

import pytest

from adapters.data.prepare import prepare_data
from adapters.data.settings import load_data_settings
from adapters.data.source import DataSource
from adapters.data.write import check_free, write_prepared
from adapters.errors import DataError
from tests.adapters.data.test_prepare import notes, silent


@pytest.fixture
def prepared(write):
    settings = load_data_settings(test_share=0.1)
    source = DataSource(write("a.jsonl", notes()))
    return prepare_data([source], settings, progress=silent), settings


def test_the_folder_holds_the_splits_and_a_report_that_is_no_data(tmp_path, prepared):
    data, settings = prepared
    folder = tmp_path / "new" / "out"
    paths = write_prepared(data, folder, settings)
    assert paths == {name: folder / f"{name}.jsonl" for name in ("train", "validation", "test")}
    report = json.loads((folder / "data_report.json").read_text())
    assert report["fingerprint"] == data.fingerprint
    assert report["examples"] == {"train": 32, "validation": 4, "test": 4}
    assert report["funnel"][0]["step"] == "read"
    again = prepare_data([DataSource(folder)], settings, progress=silent)
    assert again.fingerprint == data.fingerprint
    assert [entry.name for entry in folder.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_filled_and_an_empty_split_is_not_written(tmp_path, write):
    settings = load_data_settings(validation_share=0)
    data = prepare_data([DataSource(write("a.jsonl", notes()))], settings, progress=silent)
    (tmp_path / "out").mkdir()
    assert list(write_prepared(data, tmp_path / "out", settings)) == ["train"]
    assert not (tmp_path / "out" / "validation.jsonl").exists()


def test_nothing_is_overwritten(tmp_path, prepared):
    data, settings = prepared
    folder = tmp_path / "out"
    write_prepared(data, folder, settings)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match="not empty, and nothing is overwritten; name a new one"):
        write_prepared(data, folder, settings)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="there is a file of that name"):
        check_free(tmp_path / "file")


def test_a_folder_that_was_filled_meanwhile_stays_as_it_is(tmp_path, prepared, monkeypatch):
    data, settings = prepared
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    monkeypatch.setattr("adapters.data.write.check_free", lambda _folder: None)
    with pytest.raises(DataError, match="cannot be written"):
        write_prepared(data, folder, settings)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]
