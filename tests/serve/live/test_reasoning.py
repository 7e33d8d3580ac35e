"""A base that thinks aloud: its thoughts come in a field of their own."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.serve.live.sse import events
from tests.serve.live.thinking_base import ANSWER, QUESTION, THOUGHT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

BODY = {"messages": QUESTION, "max_tokens": 32}


@pytest.fixture
def http(two_lives):
    with two_lives.second.client() as client:
        yield client


@pytest.fixture
def official(two_lives):
    url = f"{two_lives.second.url}/v1"
    with openai.OpenAI(base_url=url, api_key="not-needed", max_retries=0) as client:
        yield client


def streamed(http, body: dict[str, Any]) -> tuple[str, str]:
    with http.stream("POST", "/generate", json={**body, "stream": True}) as response:
        *deltas, (last, _) = events(response.iter_lines())
    assert last == "done"
    return (
        "".join(delta.get("reasoning", "") for _, delta in deltas),
        "".join(delta["text"] for _, delta in deltas),
    )


def test_generate_gives_thoughts_apart_from_the_answer(http):
    answer = http.post("/generate", json=BODY).json()
    assert (answer["reasoning"], answer["text"]) == (THOUGHT, ANSWER)
    assert answer["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", [None, ["a text that never comes"]], ids=["free", "stop"])
def test_a_stream_gives_the_same(http, stop):
    assert streamed(http, {**BODY, "stop": stop}) == (THOUGHT, ANSWER)


def test_it_can_be_switched_off(http):
    answer = http.post("/generate", json={**BODY, "reasoning": False}).json()
    assert "reasoning" not in answer
    assert answer["text"] == f"{THOUGHT}</think>{ANSWER}"
    assert streamed(http, {**BODY, "reasoning": False}) == ("", answer["text"])


def test_a_thought_cut_off_by_max_tokens_is_no_answer(http):
    answer = http.post("/generate", json={**BODY, "max_tokens": 2}).json()
    assert THOUGHT.startswith(answer["reasoning"])
    assert answer["reasoning"]
    assert (answer["text"], answer["finish_reason"]) == ("", "length")


def test_a_constraint_holds_for_the_answer_and_not_for_the_thought(http):
    constraint = {"type": "choice", "choice": ["Yes", "No"]}
    answer = http.post("/generate", json={**BODY, "response_format": constraint}).json()
    assert answer["reasoning"] == THOUGHT
    assert answer["text"] in ("Yes", "No")


def test_the_official_client_sees_thoughts_in_their_field(official):
    (model, *_) = official.models.list()
    answer = official.chat.completions.create(model=model.id, messages=QUESTION, max_tokens=32, temperature=0)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.model_extra["reasoning"] == THOUGHT
    stream = official.chat.completions.create(
        model=model.id, messages=QUESTION, max_tokens=32, temperature=0, stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    assert "".join((delta.model_extra or {}).get("reasoning") or "" for delta in deltas) == THOUGHT
