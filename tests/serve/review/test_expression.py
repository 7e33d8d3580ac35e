"""Expressions of rules: what is taken, how long it can match, and what is refused with a way out."""

from __future__ import annotations

import pytest
import regex

from serve.review.expression import MAX_MATCH_CHARS, ExpressionError, parse_expression


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("abc", (3, 3)),
        ("a{2,5}", (2, 5)),
        ("a?b", (1, 2)),
        (r"\b[A-Z]{2}\d{2}(?: ?[0-9A-Z]{4}){3,7}\b", (16, 39)),
        ("(ab|c)d{3}", (4, 5)),
        ("[^]x]", (1, 1)),
        (r"[\d.-]{4}?", (4, 4)),
        (r"\x41\u0042", (2, 2)),
        ("straße", (7, 7)),
        (r"\$\^\*", (3, 3)),
    ],
)
def test_the_length_of_a_match_is_known(text: str, lengths: tuple[int, int]) -> None:
    made = parse_expression(text)
    assert (made.min_chars, made.max_chars) == lengths
    regex.compile(made.source)
    regex.compile(made.opener)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a*", "upper bound"),
        ("a+", "write for example {1,40}"),
        ("a{3,}", "both bounds"),
        ("a{,3}", "both bounds"),
        ("a{3,2}", "wrong order"),
        ("a{0}", "or nothing"),
        ("^a", "looks everywhere"),
        ("a$", "looks everywhere"),
        ("(?=a)b", "only '(?:'"),
        ("(?i)a", "only '(?:'"),
        (r"(a)\1", r"\1 is not taken"),
        (r"\p{L}", r"\p is not taken"),
        ("a?", "empty text"),
        ("(a", "without a ')'"),
        ("a)", "without a '('"),
        ("[a", "without a ']'"),
        ("a\\", "lone backslash"),
        ("?a", "repeats nothing"),
        ("a{2}{3}", "needs a group"),
        ("(?:a{1,100}){9}", f"at most {MAX_MATCH_CHARS}"),
        ("[ß]", "stands for 2 characters"),
        ("[à-ü]", "cannot end a range"),
        ("[z-a]", "wrong order"),
        ("a\u200bb", "left out of texts"),
        (r"\xZZ", "hexadecimal"),
    ],
)
def test_what_cannot_be_told_on_a_stream_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text)
    assert reason in str(caught.value)
