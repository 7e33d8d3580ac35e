"""What docs/review.md and the shipped policy say is so."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from serve.review.finding import find_reviewers
from serve.review.patterns import PatternRefusalError, Patterns
from serve.review.review import Reviewer
from serve.review.rules import read_rules
from serve.review.subject import Subject
from serve.review.threads import ReviewThreads
from serve.review.verdict import Flag, Redact, Refuse

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs" / "review.md").read_text(encoding="utf-8")
SAMPLE = REPOSITORY / "deploy" / "review" / "rules.toml"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's example, importable."""
    (source,) = blocks("python")
    module = ModuleType("bank_policy_of_the_page")
    exec(compile(source, "docs/review.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


async def test_the_example_of_the_page_does_what_it_says(bank: ModuleType) -> None:
    tone = Subject("req-1", "/generate", "local", "", "tone", "tone@3f2a91c0")
    base = Subject("req-2", "/generate", "local", "", None, None)
    assert bank.review("prompt", "Money?", tone) == Refuse(
        "tone-only", "This adapter writes letters; it does not talk about money."
    )
    assert bank.review("prompt", "Money?", base) is None
    assert bank.review("answer", "Dear Jane Doe", base) == [
        Redact("client-names", "Dear [client]"),
        Flag("told-a-name"),
    ]
    found = find_reviewers([f"{bank.__name__}:review"], rules=None, threads=ReviewThreads(), seconds=1.0)
    assert await Reviewer(found).answer(base, "Dear Jane Doe") == "Dear [client]"


def test_the_rules_of_the_page_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(next(block for block in blocks("toml") if "[[rule]]" in block))
    (rule,) = read_rules(path)
    assert rule.pattern.search("you will double your money")


def test_the_entry_point_of_the_page_is_in_the_group_that_is_looked_at() -> None:
    block = next(block for block in blocks("toml") if "entry-points" in block)
    assert tomllib.loads(block)["project"]["entry-points"] == {
        "hotswap.reviewers": {"bank": "bank.policy:review"}
    }


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("pay to DE89 3704 0044 0532 0130 00 today", "pay to [IBAN] today"),
        ("GB29NWBK60161331926819.", "[IBAN]."),
        ("card 4111 1111 1111 1111 and 378282246310005", "card [card number] and [card number]"),
        ("Patient no. 1234567 came", "[patient number] came"),
        ("write to jane.doe@example.co.uk!", "write to [e-mail]!"),
        ("In 2026 rates were 4.5 percent; call 555-0100.", "In 2026 rates were 4.5 percent; call 555-0100."),
        (
            "The risk is low, and returns are not guaranteed.",
            "The risk is low, and returns are not guaranteed.",
        ),
    ],
)
def test_the_shipped_policy_takes_out_identifiers_and_leaves_the_rest(text: str, passed: str) -> None:
    rules = [rule for rule in read_rules(SAMPLE) if rule.applies("answer", "base")]
    assert Patterns(rules, match_seconds=5.0).whole(text).text == passed


@pytest.mark.parametrize(
    ("stage", "text", "rule"),
    [
        ("answer", "This is a Guaranteed Return.", "promised-returns"),
        ("answer", "The share will certainly double.", "promised-returns"),
        ("answer", "You can stop taking your\nmedication.", "stopping-medication"),
        ("prompt", "Got an insider tip for me?", "inside-information"),
    ],
)
def test_the_shipped_policy_refuses_promises(stage: str, text: str, rule: str) -> None:
    rules = [each for each in read_rules(SAMPLE) if stage in each.stages]
    with pytest.raises(PatternRefusalError) as caught:
        Patterns(rules, match_seconds=5.0).whole(text)
    assert caught.value.rule.name == rule


@pytest.mark.parametrize(
    ("text", "rule"), [("take 2.5 mg per day", "dosage"), ("to end my life", "self-harm")]
)
def test_the_shipped_policy_flags_what_somebody_should_look_at(text: str, rule: str) -> None:
    rules = [each for each in read_rules(SAMPLE) if "answer" in each.stages]
    assert [each.name for each in Patterns(rules, match_seconds=5.0).whole(text).rules] == [rule]
