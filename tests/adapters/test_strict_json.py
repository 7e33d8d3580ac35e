from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import AdapterFileError
from adapters.strict_json import parse_json_object

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_every_object_comes_back_as_it_was_written(value):
    assert parse_json_object(json.dumps(value).encode(), what="x") == value


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff{}", "UTF-8"),
        (b"{", "not valid JSON"),
        (b"[]", "not list"),
        (b'{"a":1,"a":2}', "twice"),
        (b'{"a":{"b":1,"b":2}}', "twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":1e999}', "too large"),
        (b'{"a":' + b"9" * 5000 + b"}", "5000 characters"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'{"a":1} {}', "not valid JSON"),
    ],
)
def test_what_is_not_one_plain_object_is_refused_with_its_reason(raw, message):
    with pytest.raises(AdapterFileError, match=message):
        parse_json_object(raw, what="The file")


@pytest.mark.parametrize("raw", [b'{"a":-1}', b'{"a":-0}', b'{"a":1.0}', b'{"a":1e3}'])
def test_integers_only_refuses_other_numbers(raw):
    with pytest.raises(AdapterFileError, match="non-negative integers"):
        parse_json_object(raw, what="The file", integers_only=True)


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_another_error(raw):
    try:
        parse_json_object(raw, what="x")
    except AdapterFileError as error:
        assert str(error).startswith("x ")
