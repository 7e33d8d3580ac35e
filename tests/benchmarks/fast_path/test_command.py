"""The command: one reference for many comparisons, a report, and the verdict as exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.errors import PlanError
from benchmarks.fast_path import __main__
from benchmarks.fast_path.errors import AnswerLostError, ReferenceFileError, StaleReferenceError
from benchmarks.fast_path.questions import Question
from benchmarks.fast_path.reference import Answered, Judged
from benchmarks.fast_path.trial import OFF_PATCHES, Trial

LOGPROBS = (-0.5, -0.75)  # of the reference
EXACT = (-0.5, -0.78125)  # so that a tie is within 0.0625


class Engines:
    """Stand in for gateways and for the exact result; `asked` are the parts and numbers that were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[int]]] = []
        self.judged: list[int] = []
        self.fails_after: int | None = None
        self.chosen = {OFF_PATCHES: 1}
        self.exact = EXACT

    def ask(
        self, trial: Trial, questions: Sequence[Question], patches: str, *, say: Callable[[str], None]
    ) -> Iterator[Answered]:
        self.asked.append((patches, [question.number for question in questions]))
        for place, question in enumerate(reversed(questions)):
            if place == self.fails_after:
                raise AnswerLostError(f"question {question.number} was not answered")
            token = self.chosen.get(patches, 1)
            yield Answered(
                number=question.number,
                adapter=question.adapter,
                prompt_sha256=question.sha256,
                candidates=((token, 3 - token),) * trial.num_tokens,
                logprobs=(LOGPROBS,) * trial.num_tokens,
            )

    def judge(self, pairs: Iterable[tuple[Question, Answered]]) -> Iterator[Judged]:
        for question, answer in pairs:
            self.judged.append(question.number)
            yield Judged(number=question.number, logprobs=(self.exact,) * len(answer.candidates))


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engines:
    stand_in = Engines()
    monkeypatch.setattr(__main__, "ask", stand_in.ask)
    monkeypatch.setattr(__main__, "Judge", lambda *_: stand_in)
    monkeypatch.setattr(__main__, "_FOLDER", tmp_path / "build")
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    return stand_in


def invoke(*arguments: str, prompts: int = 5) -> Result:
    options = [
        "--base",
        "tiny",
        "--prompts",
        str(prompts),
        "--adapters",
        "2",
        "--ranks",
        "4",
        "--tokens",
        "2",
    ]
    return CliRunner().invoke(__main__.app, [*options, *arguments])


def test_the_reference_is_computed_once_and_serves_many_comparisons(engines: Engines, tmp_path: Path) -> None:
    path = str(tmp_path / "reference.jsonl")
    assert invoke("--reference", path).exit_code == 0
    assert invoke("--reference", path).exit_code == 0  # nothing is left to do
    result = invoke("--compare", path, "--patches", "auto", "--patches", "lora-grouped")
    assert result.exit_code == 0, result.output
    numbers = list(range(5))
    assert engines.asked == [(OFF_PATCHES, numbers), ("auto", numbers), ("lora-grouped", numbers)]
    assert sorted(engines.judged) == numbers


def test_a_reference_that_broke_off_goes_on_where_it_was(engines: Engines, tmp_path: Path) -> None:
    path = str(tmp_path / "reference.jsonl")
    engines.fails_after = 2
    assert isinstance(invoke("--reference", path).exception, AnswerLostError)
    engines.fails_after = None
    assert invoke("--reference", path).exit_code == 0
    assert engines.asked == [(OFF_PATCHES, [0, 1, 2, 3, 4]), (OFF_PATCHES, [0, 1, 2])]
    assert sorted(engines.judged) == [0, 1, 2, 3, 4]


def test_without_a_file_named_both_are_done_and_the_reference_stays(engines: Engines) -> None:
    for _ in range(2):
        result = invoke()
        assert result.exit_code == 0, result.output
    assert [patches for patches, _ in engines.asked] == [OFF_PATCHES, "auto", "auto"]


def test_a_part_of_a_reference_is_compared_as_far_as_it_goes(engines: Engines, tmp_path: Path) -> None:
    path = str(tmp_path / "reference.jsonl")
    invoke("--reference", path, prompts=3)
    result = invoke("--compare", path)
    assert result.exit_code == 0, result.output
    assert engines.asked[-1] == ("auto", [0, 1, 2])
    assert "3 of 5 answers" in result.stdout


@pytest.mark.parametrize(
    ("token", "exact", "exit_code", "cells"),
    [
        (1, EXACT, 0, ["5 (100.0%)", "0", "0"]),
        (2, EXACT, 1, ["0 (0.0%)", "0", "5"]),
        (2, (-0.5, -0.5), 0, ["0 (0.0%)", "5", "0"]),
        (9, (-0.5, -0.5), 1, ["0 (0.0%)", "0", "5"]),
    ],
)
def test_the_report_has_the_shares_and_the_exit_code_the_verdict(
    engines: Engines, tmp_path: Path, token: int, exact: tuple[float, float], exit_code: int, cells: list[str]
) -> None:
    engines.chosen["lora-grouped"] = token
    engines.exact = exact
    result = invoke("--patches", "lora-grouped", "--out", str(tmp_path / "out"))
    assert result.exit_code == exit_code, result.output
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert text in result.stdout
    (row,) = [line for line in text.splitlines() if line.startswith("| lora-grouped ")]
    assert [cell.strip() for cell in row.strip("|").split("|")][2:5] == cells
    partings = [line for line in text.splitlines() if line.startswith("- question")]
    assert len(partings) == (0 if token == 1 else 5)
    assert all(line.endswith(": a tie" if exit_code == 0 else ": not a tie") for line in partings)


def test_a_reference_of_something_else_is_refused_before_a_gateway_starts(
    engines: Engines, tmp_path: Path
) -> None:
    path = str(tmp_path / "reference.jsonl")
    invoke("--reference", path)
    begun = len(engines.asked)
    for stale in (("--dtype", "bfloat16"), ("--ranks", "8"), ("--tokens", "3")):
        assert isinstance(invoke("--compare", path, *stale).exception, StaleReferenceError)
        assert isinstance(invoke("--reference", path, *stale).exception, StaleReferenceError)
    assert len(engines.asked) == begun


def test_nothing_to_compare_with_is_a_message(engines: Engines, tmp_path: Path) -> None:
    path = str(tmp_path / "reference.jsonl")
    assert isinstance(invoke("--compare", path).exception, ReferenceFileError)
    engines.fails_after = 0
    invoke("--reference", path)
    assert isinstance(invoke("--compare", path).exception, ReferenceFileError)
    assert isinstance(invoke("--compare", path, "--reference", path).exception, PlanError)
