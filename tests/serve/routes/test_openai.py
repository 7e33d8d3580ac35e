"""OpenAI's dialect on the scripted handlers: names, bounds, admission, leases and metrics around them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from serve.engine.scripted import Script, ScriptedEngine
from tests.patience import patient
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
USER = {"role": "user", "content": "hi"}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def body_for(path: str, **fields: Any) -> dict[str, Any]:
    given = {"messages": [USER]} if path == CHAT else {"prompt": "hi"}
    return {"model": "scripted", "max_tokens": 2, **given, **fields}


def text_of(answer: dict[str, Any]) -> str:
    choice = answer["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_named_model_answers(scripted_gateway: MakeGateway, path: str) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    for model, speaker in (("scripted", "base"), ("risk", version), (version, version)):
        response = await gateway.client.post(path, json=body_for(path, model=model))
        assert response.status_code == 200, response.text
        answer = response.json()
        assert text_of(answer) == f"{speaker} " * 2
        assert answer["id"] == response.headers["x-request-id"]
        assert answer["usage"]["completion_tokens"] == 2
    assert gateway.holds_nothing


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_unknown_model_is_never_the_base(scripted_gateway: MakeGateway, path: str) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.post(path, json=body_for(path, model="gpt-4"))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert gateway.engine.requests == []


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_is_chunks_and_done(scripted_gateway: MakeGateway, path: str) -> None:
    gateway = await scripted_gateway()
    call = gateway.call("POST", path, json=body_for(path, stream=True))
    status, headers = await call.head()
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    events = (await call.rest()).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [orjson.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "length"]
    await call.task
    assert gateway.holds_nothing


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_that_fails_says_so_and_is_done(scripted_gateway: MakeGateway, path: str) -> None:
    gateway = await scripted_gateway(Script(fail_after_tokens=1))
    call = gateway.call("POST", path, json=body_for(path, stream=True))
    await call.head()
    events = (await call.rest()).decode().split("\n\n")
    assert orjson.loads(events[1].removeprefix("data: "))["error"]["code"] == "generation_failed"
    assert events[2:] == ["data: [DONE]", ""]
    assert gateway.holds_nothing


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_is_out_of_the_engine(
    scripted_gateway: MakeGateway, streaming: bool
) -> None:
    gateway = await scripted_gateway()
    await gateway.load("risk")
    gateway.engine.gate.clear()
    call = gateway.call("POST", CHAT, json=body_for(CHAT, model="risk", stream=streaming, max_tokens=9))
    await gateway.engine.wait_active(1)
    call.leave()
    await call.task
    await gateway.engine.wait_gone()
    assert gateway.holds_nothing


async def test_tokens_are_counted_under_the_adapter(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = (await gateway.load("risk")).partition("@")[2]
    for streaming in (True, False):
        call = gateway.call("POST", CHAT, json=body_for(CHAT, model="risk", stream=streaming))
        await call.head()
        await call.rest()
        await call.task
    value = gateway.gateway.metrics.registry.get_sample_value
    labels = {"adapter": "risk", "version": version}
    assert value("hotswap_completion_tokens_total", labels) == 4
    assert value("hotswap_ttft_seconds_count", labels) == 2
    assert value("hotswap_prompt_tokens_total", labels) == 2 * len("user: hi\n")


async def test_a_token_beyond_the_vocabulary_never_reaches_the_engine(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway()
    for fields in ({"prompt": [256]}, {"prompt": [[1], [300]]}, {"logit_bias": {"256": 1}}):
        response = await gateway.client.post(COMPLETIONS, json=body_for(COMPLETIONS, **fields))
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_value")
    assert gateway.engine.requests == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
    ],
)
async def test_fields_that_do_not_go_together_are_named(
    scripted_gateway: MakeGateway, fields: dict[str, Any], param: str
) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.post(CHAT, json=body_for(CHAT, **fields))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (422, param)
    assert "body" not in error["message"]


async def test_a_text_that_cannot_fit_is_refused_before_the_handler(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    message = {"role": "user", "content": "x" * 5000}
    response = await gateway.client.post(CHAT, json=body_for(CHAT, messages=[message]))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "messages",
    )


async def test_models_are_the_base_and_what_is_live(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    listed = (await gateway.client.get("/v1/models")).json()["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in listed] == [
        ("scripted", "scripted", None),
        ("risk", version, "scripted"),
        (version, version, "scripted"),
    ]
    for card in listed:
        assert (await gateway.client.get(f"/v1/models/{card['id']}")).json() == card
    assert (await gateway.client.get("/v1/models/nobody")).status_code == 404
    await gateway.client.delete("/admin/adapters/risk")
    assert len((await gateway.client.get("/v1/models")).json()["data"]) == 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("POST", "/v1/embeddings")])
async def test_routes_of_vllm_are_not_there(scripted_gateway: MakeGateway, method: str, path: str) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "route_not_found")


async def test_a_method_that_a_route_does_not_take_is_405(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.get("/generate")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_a_list_of_prompts_wider_than_the_engine_keeps_nobody_out(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(max_num_seqs=4)
    gateway.engine.gate.clear()
    before = asyncio.create_task(gateway.client.post("/generate", json={"prompt": "a", "max_tokens": 2}))
    await gateway.engine.wait_active(1)
    wide = asyncio.create_task(
        gateway.client.post(COMPLETIONS, json=body_for(COMPLETIONS, prompt=["hi"] * 7, n=2))
    )
    async with asyncio.timeout(patient(5)):
        await gateway.engine.wait_active(3)  # it begins beside what runs, as far as there is room
    after = asyncio.create_task(gateway.client.post("/generate", json={"prompt": "a", "max_tokens": 2}))
    gateway.engine.gate.set()
    assert [(await task).status_code for task in (before, after)] == [200, 200]
    answer = (await wide).json()
    assert [choice["index"] for choice in answer["choices"]] == list(range(14))
    assert answer["usage"] == {"prompt_tokens": 14, "completion_tokens": 28, "total_tokens": 42}
    assert gateway.holds_nothing


async def test_a_list_of_prompts_is_answered_alike_in_one_piece_and_in_several(
    scripted_gateway: MakeGateway,
) -> None:
    body = body_for(COMPLETIONS, prompt=["a", "bc", "def", "g", "h"])
    answers = []
    for width in (64, 4):
        gateway = await scripted_gateway(max_num_seqs=width)
        response = await gateway.client.post(COMPLETIONS, json=body)
        answers.append({**response.json(), "id": None})
        assert response.json()["id"] == response.headers["x-request-id"]
        assert len(gateway.engine.requests) == 5
        await gateway.life.down()
    assert answers[0] == answers[1]


async def test_the_first_part_that_fails_ends_the_others(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(fail_after_tokens=1), max_num_seqs=4)
    response = await gateway.client.post(COMPLETIONS, json=body_for(COMPLETIONS, prompt=["hi"] * 9))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "generation_failed")
    assert gateway.holds_nothing


async def test_a_stream_wider_than_the_engine_is_refused(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_num_seqs=4)
    body = body_for(COMPLETIONS, prompt=["hi"] * 6, stream=True)
    response = await gateway.client.post(COMPLETIONS, json=body)
    assert response.status_code == 422
    assert "6 answers cannot be streamed at once, at most 5" in response.json()["error"]["message"]
    assert gateway.engine.requests == []


async def test_a_model_whose_name_holds_a_slash_has_a_card(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(engine=ScriptedEngine(model_name="org/base"))
    card = await gateway.client.get("/v1/models/org/base")
    assert (card.status_code, card.json()["id"]) == (200, "org/base")
    assert (await gateway.client.get("/v1/models/org/other")).status_code == 404
