"""The `openai` package against vLLM's handlers behind the gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.serve.live.live_server import LiveServer
from tests.serve.live.test_disconnect import connect

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "smollm2-135m-instruct"
ASK = {"role": "user", "content": "What is the capital of France?"}
TENANT_TOKENS = 'hotswap_tenant_tokens_total{tenant="none"}'
GENERATED = "vllm:generation_tokens_total"


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=300) as made:
        yield made


def test_a_conversation_goes_on_with_the_message_as_it_was_answered(client: Any) -> None:
    first = client.chat.completions.create(model=MODEL, messages=[ASK], max_tokens=12, temperature=0)
    message = first.choices[0].message
    assert "Paris" in message.content
    again = {"role": "user", "content": "Say that again."}
    second = client.chat.completions.create(model=MODEL, messages=[ASK, message, again], max_tokens=8)
    spelled = [ASK, {"role": "assistant", "content": message.content}, again]
    same = client.chat.completions.create(model=MODEL, messages=spelled, max_tokens=8)
    assert second.usage.prompt_tokens == same.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_stream_says_what_the_whole_answer_says(client: Any) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [ASK],
        "max_tokens": 16,
        "seed": 7,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = client.chat.completions.create(**asked)
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))
    for choice in whole.choices:
        own = [each for chunk in chunks for each in chunk.choices if each.index == choice.index]
        assert "".join(each.delta.content or "" for each in own) == choice.message.content
        assert [each.finish_reason for each in own if each.finish_reason] == [choice.finish_reason]
        tokens = [token.token for each in own if each.logprobs for token in each.logprobs.content or ()]
        assert tokens == [token.token for token in choice.logprobs.content]
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens == sum(len(choice.logprobs.content) for choice in whole.choices)


def test_many_prompts_are_answered_in_order_and_as_alone(client: Any) -> None:
    prompts = [f"{number} and {number} are" for number in range(25)]  # in parts: the engine takes 32
    asked: dict[str, Any] = {"model": MODEL, "max_tokens": 4, "temperature": 0}
    many = client.completions.create(prompt=prompts, **asked)
    alone = [client.completions.create(prompt=prompt, **asked) for prompt in prompts]
    assert [choice.index for choice in many.choices] == list(range(25))
    assert [choice.text for choice in many.choices] == [one.choices[0].text for one in alone]
    assert many.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    assert many.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)


def test_a_schema_a_stop_text_and_an_echo_are_kept(client: Any) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]}
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[ASK],
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content) == {"city": "Paris"}
    stopped = client.completions.create(
        model=MODEL, prompt="1 2 3 4 5 6", max_tokens=20, temperature=0, stop=[" 9"], echo=True
    )
    assert stopped.choices[0].text.startswith("1 2 3 4 5 6")
    assert " 9" not in stopped.choices[0].text
    assert stopped.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/generate", {"prompt": ["Once upon a time", "There was"], "n": 2, "temperature": 1}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [ASK]}),
        ("/v1/completions", {"model": MODEL, "prompt": ["Once", "There"]}),
    ],
    ids=["/generate", "chat", "completions"],
)
def test_what_was_generated_for_a_client_that_left_is_counted(
    server: LiveServer, route: str, body: dict[str, Any]
) -> None:
    server.wait_until(lambda: server.metric("vllm:num_requests_running") == 0, 30)
    tokens, generated = server.metric(TENANT_TOKENS), server.metric(GENERATED)
    with connect(server, route, {**body, "max_tokens": 1200, "ignore_eos": True}):
        server.wait_until(lambda: server.metric(GENERATED) >= generated + 60, 120)
    server.wait_until(lambda: server.metric("hotswap_in_flight_requests") == 0, 30)
    assert server.metric(TENANT_TOKENS) - tokens >= 60


def test_a_stream_that_cannot_begin_raises_the_clients_own_error(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        client.completions.create(model=MODEL, prompt="a " * 3000, max_tokens=8, stream=True)
