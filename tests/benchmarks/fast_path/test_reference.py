"""The file of reference answers: it grows, goes on after a cut, and is refused where it is of something else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fast_path.errors import ReferenceFileError, StaleReferenceError
from benchmarks.fast_path.questions import Question, make_questions
from benchmarks.fast_path.reference import Answered, Identity, Judged, ReferenceFile

IDENTITY = Identity(
    base_fingerprint="f00d",
    dtype="float32",
    patches="lora-isolation",
    num_tokens=2,
    adapters={"adapter-0": "aa", "adapter-1": "bb"},
    packages={"vllm": "1", "torch": "2"},
)
QUESTIONS = make_questions(["a b c d e f g"], 4, 2)


def answer(question: Question) -> Answered:
    """Two tokens with two candidates each."""
    return Answered(
        number=question.number,
        adapter=question.adapter,
        prompt_sha256=question.sha256,
        candidates=((question.number, 7), (8, 9)),
        logprobs=((-0.25, -1.5), (-1 / 3, -2.0)),
    )


def verdict(number: int) -> Judged:
    return Judged(number=number, logprobs=((-0.25, -1.5), (-0.3, -2.0)))


ENTRIES: list[Answered | Judged] = [
    *(answer(question) for question in QUESTIONS),
    *(verdict(question.number) for question in QUESTIONS),
]


def test_what_was_kept_is_read_again_to_the_last_bit(tmp_path: Path) -> None:
    file = ReferenceFile.begin(tmp_path / "new" / "file.jsonl", IDENTITY, QUESTIONS)
    for entry in ENTRIES:
        file.append(entry)
    again = ReferenceFile.read(file.path, IDENTITY, QUESTIONS)
    assert (again.answers, again.judged) == (file.answers, file.judged)
    assert again.answers[2] == answer(QUESTIONS[2])
    assert again.complete(QUESTIONS) == QUESTIONS


@given(data=st.data())
def test_a_run_that_is_cut_off_anywhere_goes_on_and_ends_with_the_same(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = ReferenceFile.begin(Path(folder) / "file.jsonl", IDENTITY, QUESTIONS)
        first_line_bytes = file.path.stat().st_size
        for entry in ENTRIES[: data.draw(st.integers(0, len(ENTRIES)))]:
            file.append(entry)
        size_bytes = file.path.stat().st_size
        with file.path.open("r+b") as stream:
            stream.truncate(data.draw(st.integers(first_line_bytes, size_bytes)))

        file = ReferenceFile.begin(file.path, IDENTITY, QUESTIONS)
        for question in file.unanswered(QUESTIONS):
            file.append(answer(question))
        for question in file.unjudged(QUESTIONS):
            file.append(verdict(question.number))

        again = ReferenceFile.read(file.path, IDENTITY, QUESTIONS)
        assert sorted(again.answers.values(), key=lambda each: each.number) == ENTRIES[:4]
        assert sorted(again.judged.values(), key=lambda each: each.number) == ENTRIES[4:]


def test_only_what_is_missing_is_asked_and_judged(tmp_path: Path) -> None:
    file = ReferenceFile.begin(tmp_path / "file.jsonl", IDENTITY, QUESTIONS)
    file.append(answer(QUESTIONS[2]))
    file.append(answer(QUESTIONS[0]))
    file.append(verdict(2))
    assert file.unanswered(QUESTIONS) == [QUESTIONS[1], QUESTIONS[3]]
    assert file.unjudged(QUESTIONS) == [QUESTIONS[0]]
    assert file.complete(QUESTIONS) == [QUESTIONS[2]]


@pytest.mark.parametrize(
    "other",
    [
        {"base_fingerprint": "beef"},
        {"dtype": "bfloat16"},
        {"num_tokens": 3},
        {"patches": "none"},
        {"adapters": {"adapter-0": "aa", "adapter-1": "cc"}},
        {"packages": {"vllm": "2", "torch": "2"}},
    ],
)
def test_answers_of_something_else_are_refused_with_both_sides_named(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    path = ReferenceFile.begin(tmp_path / "file.jsonl", IDENTITY, QUESTIONS).path
    written = path.read_bytes()
    wanted = IDENTITY.model_copy(update=other)
    (name,) = other
    for attempt in (ReferenceFile.begin, ReferenceFile.read):
        with pytest.raises(StaleReferenceError) as refused:
            attempt(path, wanted, QUESTIONS)
        assert f"{name}: {getattr(IDENTITY, name)} there, {other[name]} here" in str(refused.value)
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    "others", [make_questions(["other words than those"], 4, 2), make_questions(["a b c d e f g"], 4, 1)]
)
def test_answers_to_other_prompts_or_of_other_adapters_are_refused(
    tmp_path: Path, others: list[Question]
) -> None:
    file = ReferenceFile.begin(tmp_path / "file.jsonl", IDENTITY, QUESTIONS)
    file.append(answer(QUESTIONS[2]))
    with pytest.raises(StaleReferenceError, match="question 2"):
        ReferenceFile.read(file.path, IDENTITY, others)


def test_more_and_fewer_questions_are_the_same_file(tmp_path: Path) -> None:
    file = ReferenceFile.begin(tmp_path / "file.jsonl", IDENTITY, QUESTIONS)
    file.append(answer(QUESTIONS[3]))
    more = make_questions(["a b c d e f g"], 6, 2)
    assert len(ReferenceFile.read(file.path, IDENTITY, more).unanswered(more)) == 5
    assert ReferenceFile.read(file.path, IDENTITY, QUESTIONS[:1]).unanswered(QUESTIONS[:1]) == QUESTIONS[:1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no whole line"),
        ([verdict(0)], "first line alone"),
        ([IDENTITY, IDENTITY], "line 2: the first line alone"),
        ([IDENTITY, verdict(0)], "line 2: no answer of number 0"),
        ([IDENTITY, answer(QUESTIONS[0]), Judged(number=0, logprobs=((-1.0,),))], "line 3: no answer"),
        ([IDENTITY, answer(QUESTIONS[0]).model_copy(update={"logprobs": ((-1.0,),)})], "line 2: candidates"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(
    tmp_path: Path, lines: list[Identity | Answered | Judged], message: str
) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("".join(line.model_dump_json() + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ReferenceFileError, match=message):
        ReferenceFile.read(path, IDENTITY, QUESTIONS)


def test_other_text_and_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("no JSON\n", encoding="utf-8")
    with pytest.raises(ReferenceFileError, match="line 1"):
        ReferenceFile.begin(path, IDENTITY, QUESTIONS)
    with pytest.raises(ReferenceFileError, match="makes it"):
        ReferenceFile.read(tmp_path / "none.jsonl", IDENTITY, QUESTIONS)
