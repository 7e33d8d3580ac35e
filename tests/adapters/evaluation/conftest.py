"""Examples with labels, a tiny base with adapters, and an answerer that says what a test tells it to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.data.example import Example, Message, Origin
from adapters.evaluation.answer import Answer, Likelihood, Unavailable
from adapters.evaluation.answerers.answerer import Keep, Progress, keep_nothing, quiet
from adapters.evaluation.case import Case
from adapters.evaluation.labels import LabelRule
from adapters.evaluation.question import Question, question_of
from adapters.tiny import make_tiny_adapter
from bases.tiny import make_tiny_base
from tests.serve.conftest import clean_environment, make_settings, running_server

__all__ = ["clean_environment", "make_settings", "running_server"]  # fixtures of a gateway inside the test

PATTERN = r"(?:Risk: |风险：)(\d)"
RULE = LabelRule(PATTERN, ("0", "1", "2", "3", "4", "5"), ordinal=True)


def chat(user: str, answer: str, *, label: str | None = None, line: int = 1, system: str = "") -> Example:
    """A conversation of one question and one answer."""
    before = (Message("system", system),) if system else ()
    messages = (*before, Message("user", user), Message("assistant", answer))
    return Example(Origin("test.jsonl", line), messages=messages, label=label)


def risk(level: int, *, line: int = 1, reasons: str = "night hours, new payee") -> Example:
    """An example as in examples/risk."""
    answer = f"Reasons: {reasons}. Risk: {level}"
    return chat(f"Payment {line} at 3 in the night", answer, label=str(level), line=line)


def said(
    text: str,
    *,
    stop: bool = True,
    scores: dict[str, float] | None = None,
    unseen: float = 0.0,
) -> Answer:
    """An answer of that text."""
    return Answer(text, len(text.split()), "stop" if stop else "length", 0.1, None, scores, unseen)


def case(
    true: str | None,
    text: str,
    *,
    reference: str | None = None,
    rule: LabelRule | None = RULE,
    likelihood: Likelihood | None = None,
    **answer: Any,
) -> Case:
    """A judged answer; the reference says the true label unless another is given."""
    if reference is None:
        reference = f"Risk: {true}"
    example = chat("What?", reference, label=true)
    found = rule.find(text) if rule is not None else None
    return Case(
        example=example,
        question=question_of(example),
        answer=said(text, **answer),
        true_label=true,
        predicted=found.label if found is not None else None,
        likelihood=likelihood,
    )


class ScriptedAnswerer:
    """Says `say(question)`; its likelihoods are given or unavailable."""

    def __init__(
        self,
        say: Callable[[Question], Answer | str],
        *,
        name: str = "scripted",
        likelihoods: list[Likelihood] | Unavailable | None = None,
    ) -> None:
        self.description = name
        self.asked: list[Question] = []
        self._say = say
        self._likelihoods = likelihoods or Unavailable("this one is scripted")

    def answer(
        self,
        questions: Sequence[Question],
        *,
        rule: LabelRule | None,
        progress: Progress,
        keep: Keep = keep_nothing,
    ) -> list[Answer]:
        answers = []
        for place, question in enumerate(questions):
            self.asked.append(question)
            each = self._say(question)
            answers.append(said(each) if isinstance(each, str) else each)
            keep(place, answers[-1])
            progress(len(answers), len(questions))
        return answers

    def likelihoods(
        self, examples: Sequence[Example], *, progress: Progress
    ) -> list[Likelihood] | Unavailable:
        progress(len(examples), len(examples))
        return self._likelihoods


def no_stage(description: str) -> Progress:
    """A stage that shows nothing."""
    del description
    return quiet


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("evaluation") / "tiny")


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that moves the tiny base far enough to change its answers."""
    sizes = {"q_proj": (128, 128), "v_proj": (128, 64)}
    modules = {
        f"model.layers.{layer}.self_attn.{name}": size for layer in range(2) for name, size in sizes.items()
    }
    return make_tiny_adapter(
        tmp_path_factory.mktemp("evaluation") / "moved",
        linear_modules=modules,
        scale=0.5,
        base_name=str(tiny_base),
    )


@pytest.fixture
def risk_file(tmp_path: Path) -> Path:
    """Six chat examples, one of each level, as JSONL with a label column."""
    path = tmp_path / "held-out.jsonl"
    rows = []
    for level in range(6):
        example = risk(level, line=level + 1)
        messages = [{"role": m.role, "content": m.content} for m in example.messages]
        rows.append(json.dumps({"messages": messages, "label": example.label}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
