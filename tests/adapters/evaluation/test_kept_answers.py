"""Answers on the disk: what was given is not asked again, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.errors import EvaluationError
from adapters.evaluation.answer import Answer
from adapters.evaluation.answerers.answerer import quiet
from adapters.evaluation.kept_answers import KeptAnswers, ResumingAnswerer
from adapters.evaluation.question import Question
from tests.adapters.evaluation.conftest import ScriptedAnswerer, said
from tests.full_disk import files_no_larger_than

QUESTIONS = [Question((), f"Question {number}\u2028?", "") for number in range(6)]


class Evaluation:
    """Runs of one evaluation, with what each was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []

    def run(
        self, *, stop_after: int = 99, key: str = "k", name: str = "scripted", force: bool = False
    ) -> tuple[list[Answer], int]:
        """(answers, how many were asked)."""

        def say(question: Question) -> Answer:
            if len(inner.asked) > stop_after:
                raise KeyboardInterrupt
            return said(f"to {question.prompt}", scores={"1": 0.5})

        inner = ScriptedAnswerer(say, name=name)
        with KeptAnswers(self.path, key, force=force, say=self.told.append) as kept:
            answers = ResumingAnswerer(inner, "base", kept).answer(QUESTIONS, rule=None, progress=quiet)
            kept.remove()
        return answers, len(inner.asked)


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    return Evaluation(tmp_path / "new" / "report.partial.jsonl")


def test_what_was_answered_is_not_asked_again(evaluation: Evaluation) -> None:
    whole, asked = evaluation.run()
    assert (asked, evaluation.path.exists(), evaluation.told) == (6, False, [])
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(stop_after=3)
    assert evaluation.told == [
        f"{number} answers are kept in {evaluation.path}; the same command goes on from them"
        for number in (2, 5)
    ]
    assert evaluation.run() == (whole, 1)
    assert list(evaluation.path.parent.iterdir()) == []


def test_half_a_line_of_a_process_that_was_killed_is_asked_again(evaluation: Evaluation) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(stop_after=3)
    text = evaluation.path.read_text()
    evaluation.path.write_text(text[:-20])
    assert evaluation.run()[1] == 4


def test_answers_of_another_evaluation_are_not_taken_and_not_overwritten_unasked(
    evaluation: Evaluation,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(stop_after=3)
    before = evaluation.path.read_text()
    with pytest.raises(EvaluationError, match="another evaluation that was interrupted"):
        evaluation.run(key="other")
    assert evaluation.path.read_text() == before
    assert evaluation.run(key="other", force=True)[1] == 6


def test_answers_of_another_version_are_not_mixed_with_those_of_this_one(evaluation: Evaluation) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(stop_after=3, name="risk@11111111")
    with pytest.raises(EvaluationError, match=r"are of risk@11111111, and now risk@22222222 answers"):
        evaluation.run(name="risk@22222222")


def test_a_disk_that_takes_no_more_ends_the_keeping_alone(evaluation: Evaluation) -> None:
    with files_no_larger_than(300):
        answers, asked = evaluation.run()
    assert (len(answers), asked) == (6, 6)
    assert evaluation.told == [f"answers are no longer kept in {evaluation.path}: File too large"]
