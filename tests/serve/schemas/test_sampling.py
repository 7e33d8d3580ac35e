"""Every bound of the sampling fields, at the bound and one step beyond it."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve.engine.protocol import Constraint
from serve.schemas.generate import GenerateBody
from serve.schemas.openai import ChatBody, CompletionBody
from serve.schemas.sampling import MAX_SCHEMA_BYTES, constraint_of, small_schema

HUGE = 2**70
# field: (accepted, refused)
BOUNDS: dict[str, tuple[list[Any], list[Any]]] = {
    "n": ([None, 1, 16], [0, -1, 17, 10**9, 1.0, True, "1"]),
    "temperature": ([None, 0, 0.0, 2, 2.0], [-0.001, 2.001, math.nan, math.inf, 1e308, True, "1"]),
    "top_p": ([None, 0.0001, 1], [0, 1.0001, -1, math.nan]),
    "top_k": ([None, -1, 0, 1_000_000], [-2, 1_000_001, 1.5]),
    "min_p": ([None, 0, 1], [-0.001, 1.001]),
    "presence_penalty": ([None, -2, 2], [-2.001, 2.001, math.inf]),
    "frequency_penalty": ([None, -2, 2], [-2.001, 2.001]),
    "repetition_penalty": ([None, 0.001, 10], [0, -1, 10.001]),
    "seed": ([None, 0, 2**63 - 1], [-1, 2**63, HUGE, 1.0]),
    "stop": (
        [None, "a", ["a"], ["a"] * 16, "a" * 256, []],
        ["", [""], ["a"] * 17, ["a"] * 100_000, "a" * 257, "a\x00", "\ud800", [1], 1],
    ),
    "max_tokens": ([None, 1, 1_048_576], [-1, 1_048_577, 10**12, True, "5", 1.5]),
    "ignore_eos": ([None, True, False], [0, 1, "true"]),
    "stream": ([None, True, False], [0, 1, "true"]),
}
FORMATS: list[tuple[dict[str, Any], Constraint | None]] = [
    ({"type": "text"}, None),
    ({"type": "json_object"}, Constraint("json_object", "")),
    (
        {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        Constraint("json_schema", '{"type":"object"}'),
    ),
    ({"type": "regex", "regex": "a+"}, Constraint("regex", "a+")),
    ({"type": "choice", "choice": ["yes", "no"]}, Constraint("choice", ("yes", "no"))),
]
BAD_FORMATS: list[Any] = [
    "json",
    {},
    {"type": "grammar", "grammar": "root"},
    {"type": "text", "extra": 1},
    {"type": "json_schema"},
    {"type": "json_schema", "json_schema": {}},
    {"type": "json_schema", "json_schema": {"schema": []}},
    {"type": "json_schema", "json_schema": {"schema": {"a": HUGE}}},
    {"type": "json_schema", "json_schema": {"schema": {"a": "\ud800"}}},
    {"type": "json_schema", "json_schema": {"schema": {"a": "x" * MAX_SCHEMA_BYTES}}},
    {"type": "json_schema", "json_schema": {"schema": {}, "name": "n" * 65}},
    {"type": "regex", "regex": ""},
    {"type": "regex", "regex": "a" * 4097},
    {"type": "regex", "regex": "a\x00"},
    {"type": "choice", "choice": []},
    {"type": "choice", "choice": [""]},
    {"type": "choice", "choice": ["a"] * 257},
    {"type": "choice", "choice": ["a" * 1025]},
]


def bodies(field: str, value: Any) -> list[tuple[type[Any], dict[str, Any]]]:
    return [
        (GenerateBody, {"prompt": "x", field: value}),
        (ChatBody, {"model": "m", "messages": [{"role": "user", "content": "x"}], field: value}),
        (CompletionBody, {"model": "m", "prompt": "x", field: value}),
    ]


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, (good, _) in BOUNDS.items() for value in good]
)
def test_a_value_at_its_bound_is_taken(field: str, value: Any) -> None:
    for kind, body in bodies(field, value):
        assert getattr(kind.model_validate(body), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, (_, bad) in BOUNDS.items() for value in bad],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_beyond_its_bound_is_refused_by_name(field: str, value: Any) -> None:
    for kind, body in bodies(field, value):
        with pytest.raises(ValidationError) as refused:
            kind.model_validate(body)
        assert {problem["loc"][0] for problem in refused.value.errors()} == {field}


@pytest.mark.parametrize(("given_format", "constraint"), FORMATS)
def test_a_response_format_becomes_the_engines_constraint(
    given_format: dict[str, Any], constraint: Constraint | None
) -> None:
    for kind, body in bodies("response_format", given_format):
        assert constraint_of(kind.model_validate(body).response_format) == constraint


def test_no_response_format_is_no_constraint() -> None:
    assert constraint_of(None) is None


@pytest.mark.parametrize("given_format", BAD_FORMATS, ids=lambda value: repr(value)[:40])
def test_a_malformed_response_format_is_refused(given_format: Any) -> None:
    for kind, body in bodies("response_format", given_format):
        with pytest.raises(ValidationError):
            kind.model_validate(body)


@pytest.mark.parametrize(
    "field",
    [
        "prompt_embeds",
        "chat_template",
        "api_base",
        "lora_path",
        "image_url",
        "best_of",
        "cache_salt",
        "kv_transfer_params",
        "vllm_xargs",
        "guided_json",
    ],
)
def test_fields_that_a_client_must_never_set_are_not_known(field: str) -> None:
    for kind, body in bodies(field, 1):
        with pytest.raises(ValidationError) as refused:
            kind.model_validate(body)
        assert [problem["type"] for problem in refused.value.errors()] == ["extra_forbidden"]


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(-(2**80), 2**80)))
def test_a_schema_is_small_and_can_be_handed_on_or_is_refused(schema: dict[str, Any]) -> None:
    try:
        assert small_schema(schema) == schema
    except ValueError:
        with pytest.raises(orjson.JSONEncodeError):
            orjson.dumps(schema)
    else:
        assert orjson.loads(orjson.dumps(schema)) == schema
