"""Every format gives the same rows, and every broken file its place and its remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.data.problems import BadLines
from adapters.data.readers.formats import READERS, read_rows
from adapters.data.readers.row import ReadLimits
from adapters.errors import DataError

ROWS = [
    {"prompt": "What is 1 + 1?", "completion": "2"},
    {"prompt": 'Say "hi",\nthen stop.', "completion": "hi"},
    {"prompt": "你好，世界", "completion": "Grüße"},
]


def rows_of(path: Path, max_line_bytes: int = 1024**2, **limits: Any) -> list[dict[str, Any]]:
    bad = BadLines()
    found = read_rows(path, bad, ReadLimits(max_line_bytes=max_line_bytes, **limits))
    values = [dict(row.values) for rows in found.values() for row in rows]
    bad.refuse()
    return values


def save(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows in the format that the ending asks for."""
    suffix = path.suffix
    if suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        sign = "\t" if suffix == ".tsv" else ","
        quoted = [['"' + value.replace('"', '""') + '"' for value in row.values()] for row in rows]
        lines = [sign.join(rows[0]), *(sign.join(row) for row in quoted)]
        path.write_text("\n".join(lines) + "\n", newline="")
    return path


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    assert rows_of(save(tmp_path / f"data{suffix}", ROWS)) == ROWS


@pytest.mark.parametrize("suffix", [suffix for suffix in READERS if suffix != ".parquet"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path, suffix):
    path = save(tmp_path / f"data{suffix}", [{"text": "one"}, {"text": "two"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert rows_of(path) == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("suffix", READERS)
def test_an_empty_file_is_an_error(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    path.touch()
    with pytest.raises(DataError, match=rf"data\{suffix}: the file is empty; it must hold"):
        rows_of(path)


@pytest.mark.parametrize("suffix", [suffix for suffix in READERS if suffix != ".parquet"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_named_with_the_way_to_convert_it(tmp_path, suffix, encoding):
    path = save(tmp_path / f"data{suffix}", ROWS)
    path.write_text(path.read_text(), encoding=encoding)
    with pytest.raises(DataError, match=rf"data\{suffix}:1: the file is UTF-.*iconv -f UTF-"):
        rows_of(path)


BAD_FILES = [
    ("a.jsonl", b'{"text": "x"}\n{"text": \n', r"^a\.jsonl:2: the line is not valid JSON.*at column"),
    ("a.jsonl", b'{"text": "x"}\n\n[1]\n', r"^a\.jsonl:3: .*must hold a JSON object, not list"),
    ("a.jsonl", b'{"text": "x"}\n"x"\n', r"^a\.jsonl:2: .*not str"),
    ("a.jsonl", b'{"text": NaN}\n', r"^a\.jsonl:1: .*NaN"),
    ("a.jsonl", b'{"text": "x", "n": 1e999}\n', r"^a\.jsonl:1: .*too large"),
    ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', r"^a\.jsonl:2: .*not UTF-8.*byte 11 is 0xff.*iconv"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', r"^a\.jsonl:1: .*surrogate"),
    ("a.jsonl", b'{"text": "x", "text": "y"}\n', r"^a\.jsonl:1: .*twice"),
    ("a.jsonl", b'{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}", r"^a\.jsonl:1: .*nested"),
    ("a.json", b'[{"text": "x"},\n {"text": }]', r"^a\.json:2: not valid JSON: .*column 11"),
    ("a.json", b'{"a":' + b"[" * 60_000 + b"\n{", r"^a\.json: .*nested"),
    ("a.json", b"[", r"^a\.json:1: not valid JSON: .*column 2"),
    ("a.json", b'[{"text": "x"}, 3]', r"^a\.json:2: item 2 of the list is a number"),
    ("a.json", b'{"text": "x"}', r"^a\.json: .*keys 'text'.*write the examples as an array"),
    ("a.json", b'{"a": [], "b": []}', r"^a\.json: .*keys 'a', 'b'"),
    ("a.json", b'{"messages": [{"role": "user", "content": "x"}]}', r"^a\.json: .*array"),
    ("a.json", b'"text"', r"^a\.json: the file holds text"),
    ("a.json", b'[], "x": 1', r"^a\.json: not valid JSON: text follows"),
    ("a.json", b"[{}] }", r"^a\.json:1: not valid JSON"),
    ("a.json", b'[{"x": "\xff"}]', r"^a\.json: the file is not UTF-8"),
    ("a.json", b'[{"x": NaN}]', r"^a\.json: .*NaN"),
    ("a.csv", b"text,label\nx,1\ny\n", r"^a\.csv:3: the record has 1 fields and the header 2"),
    ("a.csv", b'text,label\n"x\ny",1\ny,2,3\n', r"^a\.csv:4: the record has 3 fields.*comma"),
    ("a.csv", b'text,label\nx,1\n"y,2\n', r"^a\.csv:3: the record that starts here.*quote"),
    ("a.csv", b'text\n"x"y\n', r"^a\.csv:2: the record that starts here"),
    ("a.csv", b"text,text\nx,y\n", r"^a\.csv:1: the header names 'text' twice"),
    ("a.csv", b"text,\nx,y\n", r"^a\.csv:1: column 2 of the header has no name"),
    ("a.csv", b"text\nGr\xfc\xdfe\n", r"^a\.csv:2: the line is not UTF-8.*WINDOWS-1252"),
    ("a.parquet", b"PAR1 nothing of the kind PAR1", r"^a\.parquet: the file cannot be read as Parquet"),
    ("a.xlsx", b"PK", r"^a\.xlsx: files with the ending '\.xlsx' are not read; taken are \.jsonl"),
    ("noending", b"x", r"^noending: .*'\(none\)'"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_a_bad_file_is_refused_with_its_place_and_a_remedy(write, name, content, message):
    with pytest.raises(DataError, match=message) as refused:
        rows_of(write(name, content))
    assert any(sign in str(refused.value) for sign in (";", "Mend", "mend", "text follows"))


def test_bad_lines_are_shown_five_at_a_time_and_counted(write):
    lines = [b'{"text": "x"}', *(b"[" * n for n in range(1, 9))]
    with pytest.raises(DataError) as refused:
        rows_of(write("a.jsonl", b"\n".join(lines)))
    text = str(refused.value)
    assert [f"a.jsonl:{n}:" in text for n in range(1, 10)] == [False, *[True] * 5, *[False] * 3]
    assert "and 3 more bad lines" in text
    assert "these 8 lines" in text
    assert "--skip-bad-lines" in text


def test_the_same_fault_is_shown_once_with_its_number(write):
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*\(and 6 more like it\)") as refused:
        rows_of(write("a.jsonl", b"[]\n" * 7))
    assert "a.jsonl:2" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_long_line_is_refused_without_being_held(write, suffix, monkeypatch):
    parsed: list[int] = []
    from adapters.data.readers import jsonl

    real = jsonl.parse_object

    def parse(raw):
        parsed.append(len(raw))
        return real(raw)

    monkeypatch.setattr(jsonl, "parse_object", parse)
    long = b'{"text": "' + b"x" * 10_000_000 + b'"}\n'
    path = write(f"a{suffix}", b'{"text": "a"}\n' + long + b'{"text": "b"}\n')
    with pytest.raises(
        DataError, match=rf"a\{suffix}:2: the line has 10,000,013 bytes, more than --max-line-bytes"
    ):
        rows_of(path)
    assert max(parsed, default=0) < 100


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_longest_line_allowed_is_allowed(write, end):
    line = b'{"text": "' + b"x" * 52 + b'"}'
    path = write("a.jsonl", line + end)
    assert rows_of(path, max_line_bytes=len(line))
    with pytest.raises(DataError, match=f"has {len(line + end):,} bytes"):
        rows_of(path, max_line_bytes=len(line) - 1)


def test_an_object_of_a_json_array_has_the_same_bound(write):
    with pytest.raises(DataError, match=r"a\.json:2: the object has .* bytes, more than"):
        rows_of(write("a.json", json.dumps([{"text": "x"}, {"text": "y" * 99}])), max_line_bytes=80)


def test_a_record_over_many_short_lines_has_the_same_bound(write):
    text = 'text\n"' + "x\n" * 200 + '"\n'
    with pytest.raises(DataError, match=r"a\.csv:2: the record has .* bytes, more than"):
        rows_of(write("a.csv", text), max_line_bytes=80)


def test_a_huge_json_file_is_sent_to_json_lines(write):
    with pytest.raises(DataError, match=r"write it as \.jsonl"):
        rows_of(write("a.json", "[]"), max_json_bytes=1)


def test_json_lines_under_the_name_json_are_read(write):
    assert rows_of(write("a.json", '{"text": "x"}\n{"text": "y"}\n')) == [{"text": "x"}, {"text": "y"}]


def test_the_one_list_in_an_object_is_the_data(write):
    assert rows_of(write("a.json", '{"version": 1, "data": [{"text": "x"}]}')) == [{"text": "x"}]


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_the_sign_between_fields_is_found_in_the_header(write, sign):
    path = write("a.csv", f'prompt{sign}"completion,;"\nx{sign}y\n')
    assert rows_of(path) == [{"prompt": "x", "completion,;": "y"}]


def test_the_sign_between_fields_can_be_set(write):
    assert rows_of(write("a.csv", "a:b\n1:2\n"), csv_delimiter=":") == [{"a": "1", "b": "2"}]


def test_a_csv_record_stands_at_the_line_it_starts_at(write):
    path = write("a.csv", 'text\n"one\ntwo"\n\nthree\n')
    rows = [row for rows in read_rows(path, BadLines(), ReadLimits(1000)).values() for row in rows]
    assert [(row.origin.line, row.values["text"]) for row in rows] == [(2, "one\ntwo"), (5, "three")]


def test_a_broken_parquet_file_says_how_far_it_was_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": [f"{n} text" for n in range(1000)]}), path, row_group_size=500, compression=None
    )
    raw = bytearray(path.read_bytes())
    middle = raw.index(b"700 text")
    raw[middle - 3000 : middle - 2000] = bytes(1000)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.parquet: the file cannot be read as Parquet"):
        rows_of(path)


def test_a_missing_file_is_named_with_what_is_there(write):
    there = write("notes.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match=r"there is no such file or folder; did you mean .*notes\.jsonl\?"):
        rows_of(there.parent / "note.jsonl")
    with pytest.raises(DataError, match="check the path"):
        rows_of(there.parent / "else" / "nothing.csv")


def test_a_pipe_is_refused_as_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "notes.jsonl")
    with pytest.raises(DataError, match="this is a pipe or a device, not a file or a folder"):
        rows_of(tmp_path / "notes.jsonl")


def splits_of(path: Path) -> dict[str | None, list[str]]:
    found = read_rows(path, BadLines(), ReadLimits(1000))
    return {split: [row.values["text"] for row in rows] for split, rows in found.items()}


def test_files_named_after_a_split_are_the_splits(write):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "dev", "test_sft"):
        folder = write(f"set/data/{name}.jsonl", [{"text": name}]).parent.parent
    write("set/README.md", "no data")
    write("set/dataset_infos.json", "{}")
    write("set/.cache/train.jsonl", [{"text": "hidden"}])
    assert splits_of(folder) == {
        "train": ["train-00000-of-00002", "train-00001-of-00002"],
        "validation": ["dev"],
        "test": ["test_sft"],
    }


def test_folders_named_after_a_split_are_the_splits(write):
    for name in ("train/a", "train/b", "validation/a"):
        folder = write(f"set/{name}.jsonl", [{"text": name}]).parent.parent
    assert splits_of(folder) == {"train": ["train/a", "train/b"], "validation": ["validation/a"]}


def test_a_folder_of_other_names_is_not_split(write):
    folder = write("set/b.jsonl", [{"text": "b"}]).parent
    write("set/a.csv", "text\na\n")
    assert splits_of(folder) == {None: ["a", "b"]}


def test_a_folder_that_is_split_in_part_is_refused(write):
    folder = write("set/train.jsonl", [{"text": "x"}]).parent
    write("set/extra.jsonl", [{"text": "x"}])
    with pytest.raises(DataError, match=r"but extra\.jsonl is not; rename it"):
        splits_of(folder)


def test_two_data_sets_in_one_folder_are_not_mixed(write):
    folder = write("set/main/train.jsonl", [{"text": "x"}]).parent.parent
    write("set/other/train.jsonl", [{"text": "x"}])
    with pytest.raises(
        DataError, match=r"files named after splits are in main and in other.*name the folder"
    ):
        splits_of(folder)


def test_parquet_text_that_is_not_utf_8_is_refused(tmp_path):
    table = pa.table({"text": pa.array([b"\xff\xfe"], pa.binary())})
    broken = pa.Array.from_buffers(pa.string(), 1, table["text"].chunk(0).buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the file cannot be read as Parquet \(.*utf-8"):
        rows_of(tmp_path / "a.parquet")


def test_a_folder_without_training_data_is_refused(write):
    folder = write("set/test.jsonl", [{"text": "x"}]).parent
    with pytest.raises(DataError, match="no file named train"):
        splits_of(folder)


def test_a_folder_without_data_is_refused(write):
    folder = write("set/readme.md", "x").parent
    with pytest.raises(DataError, match=r"the folder holds no data; files ending in \.jsonl"):
        splits_of(folder)


@given(st.binary(max_size=300), st.sampled_from([suffix for suffix in READERS if suffix != ".parquet"]))
def test_random_bytes_never_raise_another_error(tmp_path_factory, raw, suffix):
    path = tmp_path_factory.getbasetemp() / f"random{suffix}"
    path.write_bytes(raw)
    try:
        rows_of(path)
    except DataError as error:
        assert str(error).startswith("random")


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


@given(st.lists(st.fixed_dictionaries({"prompt": texts, "completion": texts}), min_size=1, max_size=5))
def test_json_lines_give_back_any_text(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), newline="")
    assert rows_of(path) == rows
