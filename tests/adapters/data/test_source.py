from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.data.source import DataSource, check_sources, common_task
from adapters.errors import DataError

names = st.text("abcdefgh.-_", min_size=1, max_size=8).filter(lambda name: name[0].isalnum())


@pytest.mark.parametrize(
    ("text", "path", "task", "weight"),
    [
        ("notes.jsonl", "notes.jsonl", "default", 1.0),
        ("risk=notes.jsonl", "notes.jsonl", "risk", 1.0),
        ("risk=notes.jsonl:0.5", "notes.jsonl", "risk", 0.5),
        ("notes.jsonl:2", "notes.jsonl", "default", 2.0),
        ("notes.jsonl:1e-2", "notes.jsonl", "default", 0.01),
        ("a:b/notes.jsonl", "a:b/notes.jsonl", "default", 1.0),
        ("notes:old.jsonl", "notes:old.jsonl", "default", 1.0),
        ("notes:old.jsonl:.5", "notes:old.jsonl", "default", 0.5),
        ("runs/lr=1/data.jsonl", "runs/lr=1/data.jsonl", "default", 1.0),
        ("notes.jsonl:", "notes.jsonl:", "default", 1.0),
        ("notes.jsonl:nan", "notes.jsonl:nan", "default", 1.0),
        ("./risk=notes.jsonl", "risk=notes.jsonl", "default", 1.0),
    ],
)
def test_task_path_and_weight_are_told_apart(text, path, task, weight):
    assert DataSource.parse(text) == DataSource(Path(path), task, weight)


@pytest.mark.parametrize("name", ["data:2", "risk=x.jsonl", "risk=x.jsonl:3"])
def test_what_exists_as_it_stands_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert DataSource.parse(name) == DataSource(Path(name))


@pytest.mark.parametrize("weight", ["0", "-1", "1e999", "-0.0"])
def test_a_weight_that_is_not_above_zero_is_refused(weight):
    with pytest.raises(DataError, match=r"weight .* is not above 0; write"):
        DataSource.parse(f"notes.jsonl:{weight}")


def test_an_empty_name_is_refused():
    with pytest.raises(DataError, match="name a file"):
        DataSource.parse("  ")


@given(names, names, st.floats(0.01, 100))
def test_what_is_written_in_that_form_is_read_in_it(task, path, weight):
    parsed = DataSource.parse(f"{task}={path}:{weight!r}")
    assert parsed == DataSource(Path(path), task, weight)


def test_one_task_has_one_weight():
    check_sources([DataSource(Path("a"), "x", 2.0), DataSource(Path("b"), "x", 2.0)])
    with pytest.raises(DataError, match=r"b: the task 'x' has the weights 2 and 1"):
        check_sources([DataSource(Path("a"), "x", 2.0), DataSource(Path("b"), "x")])


def test_no_source_is_an_error():
    with pytest.raises(DataError, match="No data was named"):
        check_sources([])


def test_the_common_task_is_the_default_where_there_are_two():
    assert common_task([DataSource(Path("a"), "x"), DataSource(Path("b"), "x")]) == "x"
    assert common_task([DataSource(Path("a"), "x"), DataSource(Path("b"), "y")]) == "default"
