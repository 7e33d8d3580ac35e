"""The rules file: what it may say, and where it says what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.errors import SettingsError
from serve.review.rules import read_rules

GOOD = """
# A comment.
[[rule]]
name = "accounts"
action = "redact"
applies_to = ["answer"]
adapters = ["risk", "base"]
regexes = ['\\b\\d{8,12}\\b']
replacement = "[account]"

[[rule]]
name = "advice"
action = "refuse"
applies_to = ["prompt", "answer"]
words = ["guaranteed"]
phrases = ["risk free"]
message = "No advice."
"""

GOOD_YAML = """
rule:
  - name: accounts
    action: redact
    applies_to: [answer]
    adapters: [risk, base]
    regexes: ['\\b\\d{8,12}\\b']
    replacement: "[account]"
  - name: advice
    action: refuse
    applies_to: [prompt, answer]
    words: [guaranteed]
    phrases: [risk free]
    message: No advice.
"""


def write(folder: Path, text: str, name: str = "rules.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("text", "name"), [(GOOD, "rules.toml"), (GOOD_YAML, "rules.yaml")])
def test_toml_and_yaml_say_the_same(tmp_path: Path, text: str, name: str) -> None:
    accounts, advice = read_rules(write(tmp_path, text, name))
    assert (accounts.name, accounts.action, accounts.replacement) == ("accounts", "redact", "[account]")
    assert accounts.applies("answer", "risk")
    assert accounts.applies("answer", "base")
    assert not accounts.applies("answer", "tone")
    assert not accounts.applies("prompt", "risk")
    assert advice.applies("prompt", "tone")
    assert advice.message == "No advice."
    assert advice.pattern.search("a guaranteed win")
    assert advice.pattern.search("it is risk\nfree")


TOML_FAULTS = [
    ('action = "redact"', 'action = "block"', 5, "rule.0.action"),
    ('adapters = ["risk", "base"]', "adapter = []", 7, "rule.0.adapter"),
    ("\\d{8,12}", "\\d+", 8, "no upper bound"),
    ('words = ["guaranteed"]', 'words = [\n  "fine",\n  "not fine",\n]', 17, "is not one word"),
    ('["prompt", "answer"]', '["prompt", "answers"]', 14, "rule.1.applies_to.1"),
    ('action = "refuse"', 'action = "redact"', 13, "never redacted"),
    ('name = "advice"', 'name = "accounts"', 12, "two rules called 'accounts'"),
    ('name = "advice"', 'name = "No Advice"', 12, "rule.1.name"),
    ('message = "No advice."', 'replacement = "x"', 17, "goes with the action 'redact'"),
    ('replacement = "[account]"', 'replacement = "a\\"b"', 9, "rule.0.replacement"),
    ('words = ["guaranteed"]', 'words = ["\\u200b"]', 15, "no character that is compared"),
]


@pytest.mark.parametrize(("part", "instead", "line", "reason"), TOML_FAULTS)
def test_a_fault_is_told_with_its_line(
    tmp_path: Path, part: str, instead: str, line: int, reason: str
) -> None:
    assert part in GOOD
    path = write(tmp_path, GOOD.replace(part, instead))
    with pytest.raises(SettingsError) as caught:
        read_rules(path)
    assert f"{path}:{line}: " in str(caught.value)
    assert reason in str(caught.value)


def test_a_fault_in_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD_YAML.replace("\\d{8,12}", "\\d+"), "rules.yml")
    with pytest.raises(SettingsError, match=r"rules\.yml:7: rule 'accounts': .*no upper bound"):
        read_rules(path)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("\\d{8,12}", "\\d+").replace('action = "refuse"', 'action = "redact"')
    with pytest.raises(SettingsError) as caught:
        read_rules(write(tmp_path, text))
    assert str(caught.value).count("rules.toml:") == 2


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("[[rule]\n", "rules.toml", "is not TOML"),
        ("a: [", "rules.yaml", "is not YAML"),
        ("", "rules.toml", "rule: Field required"),
        ("", "rules.yaml", "rules.yaml:1: the file: "),
        (GOOD, "rules.txt", "neither .toml nor .yaml"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, name: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_rules(write(tmp_path, text, name))
    assert reason in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_rules(tmp_path / "rules.toml")
