"""JSON as the server reads it: what Python's parser reads, less what nobody means to send."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serve.http.strict_json import MAX_DEPTH, InvalidJsonError, parse_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
# Texts near JSON: pieces of it in any order.
PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                '"a"',
                '"b"',
                "1",
                "-1.5",
                "1e999",
                "-1e999",
                "1e5",
                "null",
                "01",
            ),
            *(
                "NaN",
                "Infinity",
                "-Infinity",
                " ",
                "\n",
                "\ufeff",
                "'",
                "//",
                '"\\ud800"',
                '"\\u0000"',
                "true",
            ),
        ]
    ),
    max_size=12,
).map("".join)


def depth_of(value: Any) -> int:
    """Containers inside each other; a value that is no container has none."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def python_reads(text: str) -> tuple[bool, Any]:
    """Whether Python's own parser reads the text with none of the refused classes in it."""
    refused = False

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal refused
        refused = refused or len({key for key, _ in pairs}) < len(pairs)
        return dict(pairs)

    def number(literal: str) -> float:
        nonlocal refused
        refused = refused or not math.isfinite(float(literal))
        return float(literal)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_float=number, parse_constant=number)
    except ValueError:
        return False, None
    return not refused and depth_of(value) <= MAX_DEPTH, value


@given(VALUES)
def test_every_json_value_is_read_unless_it_is_refused_on_purpose(value: Any) -> None:
    text = json.dumps(value)
    readable, expected = python_reads(text)
    if readable:
        assert parse_json(text.encode()) == expected
    else:
        with pytest.raises(InvalidJsonError):
            parse_json(text.encode())


@given(PIECES)
@example('{"a":1,"a":1}')
@example("[1e999]")
@example('\ufeff{"a":1}')
def test_what_is_not_json_is_refused_and_everything_else_read(text: str) -> None:
    readable, expected = python_reads(text)
    if readable:
        assert parse_json(text.encode()) == expected
    else:
        with pytest.raises(InvalidJsonError) as refused:
            parse_json(text.encode())
        assert len(str(refused.value)) < 200


@given(st.binary(max_size=60))
def test_no_bytes_bring_the_parser_down(body: bytes) -> None:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        with pytest.raises(InvalidJsonError, match="not UTF-8"):
            parse_json(body)
        return
    readable, expected = python_reads(text)
    if readable:
        assert parse_json(body) == expected
    else:
        with pytest.raises(InvalidJsonError):
            parse_json(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"NaN", "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"[1e400]", "too large"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"x": {"a": 1, "a": 1}}', "twice"),
        (b'"\xff"', "byte 1"),
        ('"\ud800"'.encode("utf-8", "surrogatepass"), "not UTF-8"),
        (b"1" * 5000, "too many digits"),
        (b"[" * 10_000 + b"]" * 10_000, "nested"),
        (b"[" * 200_000, "nested"),
        (b"", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"secret": "hunter2"', "not JSON"),
    ],
)
def test_a_refusal_says_why_and_repeats_nothing_of_the_body(body: bytes, said: str) -> None:
    with pytest.raises(InvalidJsonError, match=said) as refused:
        parse_json(body)
    assert "hunter2" not in str(refused.value)


def nested(levels: int, opening: str, closing: str) -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_the_depth_is_bounded_to_the_level(opening: str, closing: str) -> None:
    parse_json(nested(MAX_DEPTH, opening, closing))
    with pytest.raises(InvalidJsonError, match=f"more than {MAX_DEPTH} levels"):
        parse_json(nested(MAX_DEPTH + 1, opening, closing))
