"""The allow-list in front of vLLM's handlers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve.engine.protocol import Constraint
from serve.schemas.openai import ChatBody, CompletionBody

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
# As vLLM answers, and as the openai package sends it back.
ANSWER = {
    "role": "assistant",
    "content": "ho",
    "refusal": None,
    "annotations": None,
    "audio": None,
    "function_call": None,
    "reasoning": None,
}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


def chat(**fields: Any) -> ChatBody:
    return ChatBody.model_validate({"model": "risk", "messages": [USER], **fields})


def completion(**fields: Any) -> CompletionBody:
    return CompletionBody.model_validate({"model": "risk", "prompt": "x", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "developer", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 64}]},
        {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]},
        {"messages": [{"role": "tool", "content": "3", "tool_call_id": "1"}]},
        {"tools": [TOOL] * 64, "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}},
        {"logprobs": True, "top_logprobs": 20},
        {"logit_bias": {"5": -100, "6": 100}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"max_completion_tokens": 5, "reasoning_effort": "low", "user": "me", "min_tokens": 0},
        {"messages": [USER, ANSWER, {**ANSWER, "tool_calls": [], "annotations": []}, USER]},
        {"messages": [{**ANSWER, "reasoning": "hm", "reasoning_content": "hm"}]},
        {"messages": [USER, {**ANSWER, "content": None, "reasoning": "cut off while it thought"}, USER]},
        {"store": False, "metadata": {}, "service_tier": "auto", "modalities": ["text"]},
        {"safety_identifier": "me", "prompt_cache_key": "mine"},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_the_dialect_is_taken(fields: dict[str, Any]) -> None:
    chat(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "needs 'content'"),
        ({"messages": [{"role": "user", "tool_calls": [CALL]}]}, "needs 'content'"),
        ({"messages": [{"role": "user", "content": []}]}, "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 65}]}, "content"),
        ({"messages": [{"role": "user", "content": "\x00"}]}, "NUL"),
        ({"messages": [{"role": "system", "content": "x", "audio": 1}]}, "audio"),
        ({"messages": [{**ANSWER, "refusal": "no"}]}, "cannot be put before the model"),
        ({"messages": [{**ANSWER, "function_call": {"name": "f"}}]}, "send 'tool_calls'"),
        ({"messages": [{**ANSWER, "annotations": [{}]}]}, "annotations"),
        ({"messages": [{**ANSWER, "content": None, "tool_calls": []}]}, "needs 'content'"),
        ({"messages": [{**USER, "reasoning": "hm"}]}, "goes with the role"),
        ({"store": True}, "not stored"),
        ({"metadata": {"a": "b"}}, "not stored"),
        ({"service_tier": "priority"}, "one service tier"),
        ({"modalities": ["text", "audio"]}, "answers are text"),
        ({"tools": []}, "tools"),
        ({"tools": [TOOL] * 65}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "name"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"a": "x" * 70_000}}}]},
            "larger than",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"a": 2**70}}}]},
            "cannot be read",
        ),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 1}, "logprobs"),
        ({"logit_bias": {str(i): 1 for i in range(301)}}, "at most 300"),
        ({"logit_bias": {"-1": 1}}, "not a token id"),
        ({"logit_bias": {"\u0661": 1}}, "not a token id"),
        ({"logit_bias": {"1" * 10: 1}}, "not a token id"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "goes with"),
        ({"user": "u" * 257}, "user"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_out_of_bounds_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        chat(**fields)


@pytest.mark.parametrize(
    ("prompt", "num_prompts", "num_chars", "token_ids"),
    [
        ("abc", 1, 3, []),
        (["abc", "defgh"], 2, 5, []),
        ([1, 2, 3], 1, 3, [1, 2, 3]),
        ([[1, 2], [3]], 2, 2, [1, 2, 3]),
    ],
)
def test_prompts_are_counted(prompt: Any, num_prompts: int, num_chars: int, token_ids: list[int]) -> None:
    body = completion(prompt=prompt)
    assert (body.num_prompts, body.num_chars) == (num_prompts, num_chars)
    assert list(body.token_ids) == token_ids


@pytest.mark.parametrize(
    "prompt", ["", [], [""], [[]], ["x"] * 129, [[1]] * 129, [1, "x"], [-1], [2**31], [1.5], [True], None, {}]
)
def test_a_malformed_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(ValidationError):
        completion(prompt=prompt)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [{}] * 10_000},
        {"prompt": [""] * 10_000},
        {"prompt": [[-1] * 100] * 100},
        {"prompt": "x", "logit_bias": {str(i): "a" for i in range(10_000)}},
    ],
    ids=lambda fields: repr(fields)[:30],
)
def test_of_thousands_of_faults_a_few_are_told(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        completion(**fields)
    assert refused.value.error_count() < 150


def test_of_messages_that_are_all_wrong_the_first_is_told() -> None:
    with pytest.raises(ValidationError) as refused:
        chat(messages=[{**USER, "cache_control": 1}] * 1000)
    assert refused.value.error_count() == 1


@pytest.mark.parametrize("fields", [{"suffix": "x"}, {"logprobs": 21}, {"echo": 1}, {"best_of": 2}])
def test_completion_fields_out_of_bounds_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        completion(**fields)


@pytest.mark.parametrize("prompt", ["abcd" * 1000, [1] * 1000, [[1] * 500] * 2, ["abcd" * 250] * 4])
def test_the_log_probabilities_of_echoed_prompts_are_bounded_together(prompt: Any) -> None:
    """1,000 tokens, twenty likely ones for each and the one that stands there: 21,000 for each answer."""
    assert completion(prompt=prompt, echo=True, logprobs=20, n=16).echo
    longer = prompt * 3
    with pytest.raises(ValidationError, match="1,008,000 log probabilities"):
        completion(prompt=longer, echo=True, logprobs=20, n=16)
    assert completion(prompt=longer, echo=True, logprobs=19, n=16).echo
    assert completion(prompt=longer, logprobs=20, n=16).n == 16


def test_named_token_ids_come_from_the_bias_and_the_prompt() -> None:
    assert sorted(completion(prompt=[7], logit_bias={"5": 1}).token_ids) == [5, 7]


def test_characters_of_a_conversation_are_those_of_all_parts() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]}
    assert chat(messages=[USER, parts, {"role": "assistant", "tool_calls": [CALL]}]).num_chars == 5


def test_the_engine_gets_its_own_name_for_the_model_and_nothing_it_was_not_given() -> None:
    body = chat(user="me", temperature=0.5, stream=True).engine_body("risk@3f2a91c0")
    assert body == {
        "model": "risk@3f2a91c0",
        "messages": [USER],
        "temperature": 0.5,
        "stream": True,
    }


def test_the_engine_hears_nothing_of_what_asks_for_nothing() -> None:
    body = chat(
        messages=[USER, {**ANSWER, "annotations": []}, USER],
        store=False,
        metadata={},
        service_tier="default",
        modalities=["text"],
        safety_identifier="me",
        prompt_cache_key="mine",
    ).engine_body("m")
    assert body == {"model": "m", "messages": [USER, {"role": "assistant", "content": "ho"}, USER]}


def test_thoughts_go_on_to_the_template_and_are_reviewed_with_names_and_arguments() -> None:
    thinking = {"role": "assistant", "content": "ho", "reasoning": "hm", "tool_calls": [CALL]}
    body = chat(messages=[{**USER, "name": "me"}, thinking])
    assert body.engine_body("m")["messages"][1] == thinking
    assert body.texts == ("hi", "me", "ho", "{}", "hm")


def test_a_json_schema_keeps_openais_wrapping() -> None:
    wrapped = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    assert chat(response_format=wrapped).engine_body("m")["response_format"] == wrapped


@pytest.mark.parametrize(
    ("response_format", "structured"),
    [
        ({"type": "regex", "regex": "a+"}, {"regex": "a+"}),
        ({"type": "choice", "choice": ["a", "b"]}, {"choice": ["a", "b"]}),
    ],
)
def test_formats_that_openai_has_not_become_vllms(
    response_format: dict[str, Any], structured: dict[str, Any]
) -> None:
    body = chat(response_format=response_format).engine_body("m")
    assert body["structured_outputs"] == structured
    assert "response_format" not in body


def test_everything_that_would_be_compiled_is_listed() -> None:
    body = chat(response_format={"type": "regex", "regex": "a"}, tools=[TOOL, TOOL])
    schema = Constraint("json_schema", '{"type":"object"}')
    assert body.constraints == [Constraint("regex", "a"), schema, schema]
    assert completion().constraints == []
