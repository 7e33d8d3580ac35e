"""The shipped policy on whole texts and on streams: however a text is cut, the same goes out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve.review.patterns import PatternRefusalError, Patterns
from serve.review.rules import Rule, read_rules

SECONDS = 5.0


def rules_of(folder: Path, *tables: str) -> list[Rule]:
    path = folder / "rules.toml"
    path.write_text("\n".join(f"[[rule]]\n{table}" for table in tables), encoding="utf-8")
    return read_rules(path)


def patterns(folder: Path, *tables: str) -> Patterns:
    return Patterns(rules_of(folder, *tables), match_seconds=SECONDS)


def redact(name: str, kind: str, *values: str, replacement: str = "[x]") -> str:
    listed = ", ".join(f"'{value}'" for value in values)
    return (
        f"name = '{name}'\naction = 'redact'\napplies_to = ['answer']\nreplacement = '{replacement}'\n"
        f"{kind} = [{listed}]\n"
    )


def refuse(name: str, kind: str, *values: str) -> str:
    return redact(name, kind, *values).replace("'redact'", "'refuse'").replace("replacement = '[x]'\n", "")


def streamed(made: Patterns, pieces: Sequence[str]) -> tuple[str, set[str], bool]:
    """(what went out, rules that spoke, whether it was refused)."""
    stream, sent, spoke = made.stream(), "", set()
    try:
        for place, piece in enumerate(pieces):
            passed = stream.take(piece, last=place == len(pieces) - 1)
            sent += passed.text
            spoke |= {rule.name for rule in passed.rules}
    except PatternRefusalError as error:
        return sent + error.passed.text, spoke | {error.rule.name}, True
    return sent, spoke, False


def cut(text: str, places: Sequence[int]) -> list[str]:
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in itertools.pairwise(borders)] or [""]


# Few letters, so that rules match often; marks, joiners and letters that fold to several among them.
TEXTS = st.text(st.sampled_from("aAbBc é\u0301\u200b\u00adß-1\nﬁ漢"), max_size=40)
PLACES = st.lists(st.integers(0, 40), max_size=12)
WORDS = st.lists(
    st.text(st.sampled_from("abcéß-1漢"), min_size=1, max_size=4), min_size=1, max_size=4, unique=True
)
EXPRESSIONS = (
    "a{1,3}b",
    r"\ba.{0,3}c\b",
    r"(?:ab|a){1,3}",
    r"a\B|\bb",
    r"[^ab]{2}",
    r"(?:a?){4}b",
    r"\w\b\s?[bc]{1,2}?",
    "ss?",
    r"é",
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, PLACES, WORDS, st.lists(st.sampled_from(EXPRESSIONS), max_size=3, unique=True))
@example("aab", [1, 2], ["ab"], ["a{1,3}b"])
@example("a\u200bb", [1, 2], ["ab"], [])
def test_any_chunking_of_a_stream_gives_what_the_whole_text_gives(
    tmp_path: Path, text: str, places: list[int], words: list[str], expressions: list[str]
) -> None:
    tables = [redact("w", "words", *words)]
    tables += [
        redact(f"e{place}", "regexes", source, replacement=f"<{place}>")
        for place, source in enumerate(expressions)
    ]
    made = patterns(tmp_path, *tables)
    whole = made.whole(text)
    sent, spoke, refused = streamed(made, cut(text, places))
    assert (sent, spoke, refused) == (whole.text, {rule.name for rule in whole.rules}, False)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, PLACES, WORDS, st.sampled_from(EXPRESSIONS))
def test_any_chunking_refuses_what_the_whole_text_refuses_and_sends_no_more_before(
    tmp_path: Path, text: str, places: list[int], words: list[str], expression: str
) -> None:
    made = patterns(tmp_path, redact("w", "words", *words), refuse("no", "regexes", expression))
    before: str | None = None
    try:
        made.whole(text)
    except PatternRefusalError as error:
        before = error.passed.text
    sent, _, refused = streamed(made, cut(text, places))
    assert refused == (before is not None)
    if before is not None:
        assert before.startswith(sent)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("abc 1-\n"), max_size=40), st.sampled_from(EXPRESSIONS[:7]))
def test_one_rule_on_plain_text_is_what_re_would_replace(tmp_path: Path, text: str, source: str) -> None:
    made = patterns(tmp_path, redact("e", "regexes", source))
    assert made.whole(text).text == re.sub(source, "[x]", text)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from("abc déx"), max_size=30).map("".join))
def test_no_more_is_held_back_than_the_longest_match_and_its_border(tmp_path: Path, text: str) -> None:
    made = patterns(tmp_path, redact("w", "words", "abcd"), redact("p", "phrases", "a b"))
    stream = made.stream()
    for char in text:
        stream.take(char)
        assert len(stream.held) <= max(rule.expression.max_chars for rule in made.rules)


def test_text_that_no_rule_could_begin_with_goes_out_at_once(tmp_path: Path) -> None:
    stream = patterns(tmp_path, redact("w", "words", "secret")).stream()
    assert stream.take("hello ").text == "hello "
    assert stream.take("se").text == ""
    assert stream.take("ven").text == "seven"
    assert stream.take(" insecret secre").text == " insecret "
    assert stream.take("t").text == ""  # it could still be "secrets"
    assert stream.take("s and secret").text == "secrets and "
    assert stream.take("", last=True).text == "[x]"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("café", "CAFÉ"),
        ("café", "cafe\u0301"),
        ("cafe", "café"),
        ("straße", "STRASSE"),
        ("fix", "ﬁx"),
        ("risk", "ｒｉｓｋ"),
        ("risk", "ri\u200bs\u00adk"),
        ("risk", "r\u0336i\u0336s\u0336k\u0336"),
        ("risk", "𝐫𝐢𝐬𝐤"),
        ("risk", "\u202erisk\u202c"),
        ("insider tip", "insider\n  tip"),
        ("银行", "我的银行账户"),
        ("risk", "银行risk管理"),
        ("한국", "한국은"),
        ("c++", "c++"),
    ],
)
def test_spellings_that_readers_take_as_the_same_are_the_same(tmp_path: Path, word: str, text: str) -> None:
    kind = "phrases" if " " in word else "words"
    made = patterns(tmp_path, redact("w", kind, word))
    assert "[x]" in made.whole(f"({text})").text
    assert made.whole(f"({text})").text != f"({text})"


@pytest.mark.parametrize("text", ["risks", "brisk", "r isk", "risk_", "risk1", "r-isk", "riѕk"])
def test_another_word_is_another_word(tmp_path: Path, text: str) -> None:
    assert patterns(tmp_path, redact("w", "words", "risk")).whole(text).text == text


def test_nothing_of_what_was_redacted_stays_behind(tmp_path: Path) -> None:
    made = patterns(tmp_path, redact("w", "words", "risk"))
    assert made.whole("a ri\u200bsk\u0301\u200b b").text == "a [x] b"


def test_overlapping_redactions_are_one_and_a_flag_leaves_the_text(tmp_path: Path) -> None:
    flag = refuse("note", "words", "two").replace("'refuse'", "'flag'")
    made = patterns(tmp_path, redact("p", "phrases", "one two"), redact("q", "phrases", "two three"), flag)
    passed = made.whole("one two three two")
    assert passed.text == "[x] two"
    assert [rule.name for rule in passed.rules] == ["p", "q", "note"]


def test_a_refusal_comes_when_the_match_is_sure_and_not_before(tmp_path: Path) -> None:
    stream = patterns(tmp_path, refuse("no", "words", "secret")).stream()
    assert stream.take("a secret").text == "a "
    with pytest.raises(PatternRefusalError) as caught:
        stream.take(" b")
    assert caught.value.passed.text == ""
    whole = patterns(tmp_path, refuse("no", "words", "secret"))
    with pytest.raises(PatternRefusalError) as caught:
        whole.whole("good words, then a secret")
    assert caught.value.passed.text == "good words, then a "


def test_an_expression_that_takes_for_ever_is_stopped(tmp_path: Path) -> None:
    made = Patterns(rules_of(tmp_path, refuse("slow", "regexes", "(?:a|aa){1,60}!")), match_seconds=0.05)
    with pytest.raises(TimeoutError):
        made.whole("a" * 200 + "c")


def test_a_thousand_words_cost_little_more_than_one(tmp_path: Path) -> None:
    words = [f"word{number:04d}" for number in range(1000)]
    made = patterns(tmp_path, redact("w", "words", *words))
    text = "the quick brown fox jumps over the lazy dog " * 2000 + " word0999 "
    assert made.whole(text).text.count("[x]") == 1
