"""`POST /generate`: what may be asked."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve.schemas.generate import GenerateAnswer, GenerateBody

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x"},
        {"prompt": " "},
        {"prompt": ["x", "y"]},
        {"prompt": ["x"] * 128},
        {"messages": [USER]},
        {"messages": [USER] * 1024},
        {"messages": [{"role": "user", "content": ""}]},
        {"prompt": "x", "parse_special": True},
        {"prompt": "x", "stream": True},
        {"prompt": "x", "messages": None},
        {"prompt": ["x"], "stream": False},
        {"prompt": "x", "logprobs": 0},
        {"prompt": "x", "logprobs": 20},
        {"prompt": "x", "adapter": "risk@3f2a91c0"},
        {"prompt": "x", "adapter": "a" * 160},
    ],
    ids=lambda body: repr(body)[:40],
)
def test_what_can_be_served_is_taken(body: dict[str, Any]) -> None:
    GenerateBody.model_validate(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "either 'prompt' or 'messages'"),
        ({"prompt": None}, "either 'prompt' or 'messages'"),
        ({"prompt": "x", "messages": [USER]}, "not both"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [""]}, "prompt"),
        ({"prompt": ["x"] * 129}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"prompt": "a\x00b"}, "NUL"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["x", "y"], "stream": True}, "cannot be streamed"),
        ({"messages": []}, "messages"),
        ({"messages": [USER] * 1025}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{**USER, "name": "x"}]}, "name"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "content"),
        ({"messages": [USER], "parse_special": True}, "parse_special"),
        ({"prompt": "x", "logprobs": -1}, "logprobs"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "adapter": ""}, "adapter"),
        ({"prompt": "x", "adapter": "../risk"}, "adapter"),
        ({"prompt": "x", "adapter": "risk\n"}, "adapter"),
        ({"prompt": "x", "adapter": "a" * 161}, "adapter"),
        ({"prompt": "x", "reasoning": "yes"}, "reasoning"),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_what_cannot_be_served_is_refused(body: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GenerateBody.model_validate(body)


@pytest.mark.parametrize(("stop", "stops"), [(None, ()), ("a", ("a",)), (["a", "b"], ("a", "b")), ([], ())])
def test_stops_are_a_tuple(stop: Any, stops: tuple[str, ...]) -> None:
    assert GenerateBody.model_validate({"prompt": "x", "stop": stop}).stops == stops


def test_an_answer_knows_only_its_documented_fields() -> None:
    answer = {
        "id": "req-1",
        "model": "smol",
        "adapter": None,
        "text": "x",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "timing": {"entry_ms": 0.0, "admission_ms": 0.0, "queue_ms": 0.0, "ttft_ms": None, "total_ms": 1.0},
    }
    GenerateAnswer.model_validate(answer)
    with pytest.raises(ValidationError):
        GenerateAnswer.model_validate({**answer, "more": 1})
    with pytest.raises(ValidationError):
        GenerateAnswer.model_validate({**answer, "finish_reason": "abort"})
