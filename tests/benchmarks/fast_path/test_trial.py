"""The gateways that are asked: which adapters they have, and what is kept of their answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fast_path import trial
from benchmarks.fast_path.errors import AnswerLostError
from benchmarks.fast_path.questions import make_questions
from benchmarks.fast_path.trial import CANDIDATES, Trial, as_answered, ask, identify, make_adapters
from benchmarks.gateway import find_base

QUESTIONS = make_questions(["a few words of a question"], 5, 2)
SMALL = Trial("scripted", "float32", adapters=2, ranks=(4, 8), num_tokens=3, concurrency=4)


def test_a_gateway_is_asked_in_mixed_batches_with_its_own_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    answers = sorted(ask(SMALL, QUESTIONS, "auto", say=said.append), key=lambda each: each.number)
    assert [answer.adapter for answer in answers] == [question.adapter for question in QUESTIONS]
    assert [answer.prompt_sha256 for answer in answers] == [question.sha256 for question in QUESTIONS]
    assert all(len(answer.token_ids) == 3 for answer in answers)
    assert {len(row) for answer in answers for row in answer.candidates} <= set(range(1, CANDIDATES + 2))
    assert len({answer.logprobs for answer in answers[:3]}) == 3  # base and both adapters differ
    assert any("--cpu-patches auto" in line for line in said)

    monkeypatch.setattr(trial, "CANDIDATES", 10_000)  # more than a gateway tells
    with pytest.raises(AnswerLostError, match="question"):
        list(ask(SMALL, QUESTIONS, "auto", say=said.append))


def test_the_adapters_are_those_of_the_gateway_and_their_digests_tell_them_apart(tmp_path: Path) -> None:
    base = find_base("scripted", tmp_path)
    digests = make_adapters(SMALL, base, tmp_path / "adapters")
    assert make_adapters(SMALL, base, tmp_path / "again") == digests
    assert sorted(digests) == ["adapter-0", "adapter-1"]
    assert len(set(digests.values())) == 2
    identity = identify(SMALL, base, digests)
    assert (identity.adapters, identity.dtype, identity.num_tokens) == (digests, "float32", 3)
    assert "torch" in identity.packages


def test_the_chosen_token_comes_first_and_the_others_by_likelihood() -> None:
    top = [{"id": 1, "logprob": -3.0}, {"id": 2, "logprob": -0.5}, {"id": 3, "logprob": -1.0}]
    answered = as_answered(QUESTIONS[1], [{"id": 3, "logprob": -1.0, "top": top}])
    assert answered.candidates == ((3, 2, 1),)
    assert answered.logprobs == ((-1.0, -0.5, -3.0),)
    assert (answered.number, answered.adapter) == (1, "adapter-0")
