"""Reviewers are found where the operator says, and nothing else is loaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from serve.errors import SettingsError
from serve.review.finding import ENTRY_POINTS, find_reviewers
from serve.review.text_reviewer import TextReviewer
from serve.review.threads import ReviewThreads

RULES = "[[rule]]\nname = 'a'\naction = 'flag'\napplies_to = ['answer']\nwords = ['x']\n"


def find(*names: str, rules: Path | None = None) -> Sequence[TextReviewer]:
    return find_reviewers(names, rules=rules, threads=ReviewThreads(), seconds=1.0)


def review(stage: str, text: str, subject: Any) -> None: ...


def of_answers(stage: str, text: str, subject: Any) -> None: ...


of_answers.stages = ("answers",)  # type: ignore[attr-defined]


class Kind:
    def __call__(self, stage: str, text: str, subject: Any) -> None: ...


made = Kind()


def test_a_function_of_a_module_and_an_object_that_can_be_called_are_taken() -> None:
    names = [f"{__name__}:review", f"{__name__}:made"]
    assert [reviewer.name for reviewer in find(*names)] == names


def test_an_entry_point_is_taken_when_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = importlib.metadata.EntryPoints(
        [
            importlib.metadata.EntryPoint("bank", f"{__name__}:review", ENTRY_POINTS),
            importlib.metadata.EntryPoint("broken", "no.such.module:review", ENTRY_POINTS),
        ]
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points.select(group=group))
    assert [reviewer.name for reviewer in find("bank")] == ["bank"]
    with pytest.raises(SettingsError, match=r"'broken' \(no\.such\.module:review\) cannot be loaded"):
        find("broken")
    with pytest.raises(SettingsError, match="there are: bank, broken, patterns"):
        find("other")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no.such.module:review", "ModuleNotFoundError"),
        (f"{__name__}:missing", "AttributeError"),
        (f"{__name__}:Kind", "is no function"),
        (f"{__name__}:RULES", "is no function"),
        (f"{__name__}:of_answers", "stages="),
        ("patterns", "needs --review-rules"),
    ],
)
def test_what_cannot_be_used_is_told_at_start(name: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        find(name)


def test_rules_and_their_reader_go_together(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    assert [reviewer.name for reviewer in find("patterns", rules=path)] == ["patterns"]
    with pytest.raises(SettingsError, match="nobody reads it"):
        find(rules=path)
    with pytest.raises(SettingsError, match="twice"):
        find("patterns", "patterns", rules=path)
