"""The example data is what its generator writes, and its splits have nothing in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import examples.risk.generate
from examples.risk.generate import MAX_LEVEL, SIZES, main, make_splits
from examples.risk.wording import CHINESE, ENGLISH

FOLDER = Path(examples.risk.generate.__file__).parent


def rows(split: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def notes(split: str) -> list[str]:
    return [row["messages"][0]["content"] for row in rows(split)]


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    main(tmp_path)
    for split in SIZES:
        name = f"{split}.jsonl"
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_another_seed_gives_other_notes() -> None:
    here, there = make_splits(1)["test"], make_splits(2)["test"]
    assert not {note.text for note in here} & {note.text for note in there}


@pytest.mark.parametrize("split", SIZES)
def test_every_row_has_a_question_an_answer_and_its_label(split: str) -> None:
    found = rows(split)
    assert len(found) == SIZES[split]
    for row in found:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["messages"][-1]["content"].endswith(row["label"])
    assert {row["label"] for row in found} == {str(level) for level in range(MAX_LEVEL + 1)}


@pytest.mark.parametrize("split", SIZES)
def test_the_level_is_the_number_of_signs_named_up_to_five(split: str) -> None:
    for note in make_splits()[split]:
        named = [name for name in note.signs if name in note.answer]
        assert len(named) == len(set(note.signs))
        assert note.level == min(len(note.signs), MAX_LEVEL)


def test_no_note_occurs_twice() -> None:
    everything = [note for split in SIZES for note in notes(split)]
    assert len(everything) == len(set(everything))


def test_the_towns_and_purposes_of_the_test_are_new() -> None:
    trained = "\n".join(notes("train"))
    held_out = "\n".join(notes("test"))
    for language in (ENGLISH, CHINESE):
        for words in (language.homes, language.places):
            tested = [word for word in words if word in held_out]
            assert tested
            assert not [word for word in tested if word in trained]


def test_a_part_of_the_notes_is_chinese() -> None:
    shares = [sum("。" in note for note in notes(split)) / SIZES[split] for split in SIZES]
    assert all(0.05 < share < 0.2 for share in shares)
