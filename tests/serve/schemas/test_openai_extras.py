"""Fields that vLLM adds to OpenAI's dialect: which are taken, within which bounds, and what the engine hears."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve.engine.protocol import Constraint
from serve.schemas.openai import ChatBody, CompletionBody

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def bodies(**fields: Any) -> list[tuple[type[Any], dict[str, Any]]]:
    return [
        (ChatBody, {"model": "m", "messages": [USER], **fields}),
        (CompletionBody, {"model": "m", "prompt": "x", **fields}),
    ]


def chat(**fields: Any) -> ChatBody:
    return ChatBody.model_validate({"model": "m", "messages": [USER], **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_token_ids": [2], "include_stop_str_in_output": True},
        {"stop_token_ids": []},
        {"skip_special_tokens": False, "spaces_between_special_tokens": False},
        {"bad_words": ["Paris", "x" * 255 + "y"]},
        {"allowed_token_ids": [0] * 1024},
        {"prompt_logprobs": 0},
        {"prompt_logprobs": 20, "return_tokens_as_token_ids": True},
        {"return_token_ids": True},
        {"structured_outputs": {"json": SCHEMA}},
        {"structured_outputs": {"regex": "a+"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"structured_outputs": {"json_object": True}},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_what_vllm_adds_goes_on_to_the_engine(fields: dict[str, Any]) -> None:
    for kind, body in bodies(**fields):
        asked = kind.model_validate(body).engine_body("m")
        assert {name: asked[name] for name in fields} == fields


@pytest.mark.parametrize(
    "fields",
    [
        {"include_reasoning": False, "reasoning_effort": "xhigh"},
        {"chat_template_kwargs": {"enable_thinking": False, "budget": 3, "tone": "dry", "no": None}},
        {"continue_final_message": True, "add_generation_prompt": False},
    ],
    ids=lambda fields: repr(fields)[:40],
)
def test_what_vllm_adds_to_chat_goes_on_to_the_engine(fields: dict[str, Any]) -> None:
    asked = chat(**fields).engine_body("m")
    assert {name: asked[name] for name in fields} == fields


def test_what_asks_for_nothing_is_taken_and_not_handed_on() -> None:
    for kind, body in bodies(use_beam_search=False, priority=0):
        asked = kind.model_validate(body).engine_body("m")
        assert not {"use_beam_search", "priority"} & asked.keys()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": [1] * 65}, "at most 64"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [1] * 1025}, "at most 1024"),
        ({"bad_words": [""]}, "bad_words"),
        ({"bad_words": ["é" * 128, "é" * 128]}, "hold 514 bytes"),
        ({"bad_words": ["a"] * 65}, "at most 64"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "are not streamed"),
        ({"structured_outputs": {}}, "takes one of"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "takes one of"),
        ({"structured_outputs": {"json": "{"}}, "text of a JSON schema"),
        ({"structured_outputs": {"json": "[]"}}, "is an object"),
        ({"structured_outputs": {"json": {"a": "x" * 70_000}}}, "larger than"),
        ({"structured_outputs": {"grammar": "root ::= 'a'"}}, "grammar"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "say the same",
        ),
        ({"use_beam_search": True}, "beam search is not offered"),
        ({"priority": 1}, "the gateway's to say"),
        ({"logprob_token_ids": [1]}, "logprob_token_ids"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_out_of_bounds_is_refused(fields: dict[str, Any], said: str) -> None:
    for kind, body in bodies(**fields):
        with pytest.raises(ValidationError, match=said):
            kind.model_validate(body)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"messages": "x"}, "not the template's own"),
        ({"chat_template": "x"}, "not the template's own"),
        ({"a b": 1}, "pattern"),
        ({"a": [1]}, "valid"),
        ({"a": "x" * 257}, "256"),
        ({f"a{i}": 1 for i in range(17)}, "at most 16"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_template_is_given_plain_values_of_its_own(values: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        chat(chat_template_kwargs=values)


def test_a_text_for_the_template_is_reviewed_like_a_message() -> None:
    assert chat(chat_template_kwargs={"tone": "dry", "n": 1}).texts == ("hi", "dry")


@pytest.mark.parametrize(
    ("given", "constraint"),
    [
        ({"json": {"type": "object"}}, Constraint("json_schema", '{"type":"object"}')),
        ({"json": '{"type": "object"}'}, Constraint("json_schema", '{"type":"object"}')),
        ({"regex": "a+"}, Constraint("regex", "a+")),
        ({"choice": ["a", "b"]}, Constraint("choice", ("a", "b"))),
        ({"json_object": True}, Constraint("json_object", "")),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_asked_for_in_vllms_words_is_compiled_first_too(
    given: dict[str, Any], constraint: Constraint
) -> None:
    for kind, body in bodies(structured_outputs=given, response_format={"type": "text"}):
        assert kind.model_validate(body).constraints == [constraint]


def test_named_token_ids_are_those_of_every_field() -> None:
    for kind, body in bodies(stop_token_ids=[1], allowed_token_ids=[2], logit_bias={"3": 1}):
        assert sorted(kind.model_validate(body).token_ids) == [1, 2, 3]


def test_no_token_is_generated_for_a_prompt_that_is_echoed() -> None:
    echoed = CompletionBody.model_validate({"model": "m", "prompt": "x", "max_tokens": 0, "echo": True})
    assert echoed.engine_body("m", max_tokens=9)["max_tokens"] == 0
    with pytest.raises(ValidationError, match="'max_tokens': 0 goes with 'echo'"):
        CompletionBody.model_validate({"model": "m", "prompt": "x", "max_tokens": 0})


def test_the_log_probabilities_of_prompts_are_bounded_together() -> None:
    """4,000 characters are 1,000 tokens or so, with twenty likely ones for each: 21,000 for each answer."""
    asked = {"prompt_logprobs": 20, "n": 16}
    long = {"prompt": "abcd" * 3000, "messages": [{"role": "user", "content": "abcd" * 3000}]}
    for kind, body in bodies(**asked):
        kind.model_validate(body)
        with pytest.raises(ValidationError, match="'prompt_logprobs' would give about 1,008,000"):
            kind.model_validate({**body, **{name: value for name, value in long.items() if name in body}})


def test_a_prompt_that_is_templated_says_so_to_the_handlers() -> None:
    body = CompletionBody.model_validate({"model": "m", "prompt": "x", "parse_special": True})
    assert body.engine_body("m")["parse_special"] is True
    with pytest.raises(ValidationError, match="parse_special"):
        chat(parse_special=True)


@pytest.mark.parametrize(
    ("fields", "tells"), [({}, False), ({"prompt_logprobs": 0}, True), ({"return_token_ids": True}, True)]
)
def test_answers_that_tell_of_tokens_say_so(fields: dict[str, Any], tells: bool) -> None:
    for kind, body in bodies(**fields):
        assert kind.model_validate(body).tells_of_tokens is tells
