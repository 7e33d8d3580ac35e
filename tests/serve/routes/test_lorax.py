"""`/lorax` on the scripted engine: shapes, names, errors, and the one passage of every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from serve.engine.scripted import Script
from serve.gateway import Phase
from serve.generation.generation import SequenceAnswer
from serve.routes.lorax import finish_reason
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
WHOLE = ("/lorax/generate", "/lorax", "/lorax/models/scripted")


def body_for(**parameters: Any) -> dict[str, Any]:
    return {"inputs": "hi", "parameters": {"max_new_tokens": 2, **parameters}}


def events_of(stream: bytes) -> list[dict[str, Any]]:
    *events, rest = stream.split(b"\n\n")
    assert rest == b""
    return [orjson.loads(event.removeprefix(b"data:")) for event in events]


@pytest.mark.parametrize("path", WHOLE)
async def test_a_prompt_is_answered_whole(scripted_gateway: MakeGateway, path: str) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.post(path, json=body_for())
    assert response.status_code == 200, response.text
    answer = {"generated_text": "base base "}
    assert response.json() == (answer if path == "/lorax/generate" else [answer])
    assert gateway.holds_nothing


async def test_the_named_adapter_answers(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    for adapter_id, speaker in (("risk", version), (version, version), ("__base__", "base"), ("", "base")):
        response = await gateway.client.post("/lorax/generate", json=body_for(adapter_id=adapter_id))
        assert response.json() == {"generated_text": f"{speaker} " * 2}
        assert response.headers["x-hotswap-adapter"] == speaker
    for reference in ("risk", version):
        response = await gateway.client.post(f"/lorax/models/{reference}", json=body_for())
        assert response.json() == [{"generated_text": f"{version} " * 2}]


async def test_an_unknown_adapter_is_never_the_base(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    for path, given in (
        ("/lorax", body_for(adapter_id="nobody/knows", adapter_source="hub")),
        ("/lorax/generate_stream", body_for(adapter_id="nobody")),
        ("/lorax/models/nobody/knows", body_for()),
    ):
        response = await gateway.client.post(path, json=given)
        assert (response.status_code, response.json()["error_type"]) == (404, "model_not_found"), path
    assert gateway.engine.requests == []


async def test_two_different_adapters_are_refused(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    await gateway.load("risk")
    same = await gateway.client.post("/lorax/models/risk", json=body_for(adapter_id="risk"))
    other = await gateway.client.post("/lorax/models/risk", json=body_for(adapter_id="other"))
    assert (same.status_code, other.status_code, other.json()["error_type"]) == (200, 422, "validation")


async def test_details_hold_real_tokens(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    asked = body_for(details=True, return_k_alternatives=1, top_n_tokens=1, seed=3, do_sample=True)
    response = await gateway.client.post("/lorax/generate", json=asked)
    details = response.json()["details"]
    assert (details["finish_reason"], details["seed"]) == ("length", 3)
    assert (details["prompt_tokens"], details["generated_tokens"], details["prefill"]) == (2, 2, [])
    assert [token["id"] for token in details["tokens"]] == [0, 1]
    for token, top in zip(details["tokens"], details["top_tokens"], strict=True):
        assert token["logprob"] < 0
        assert token["alternative_tokens"] == [{key: token[key] for key in ("id", "text", "logprob")}]
        assert top == [{key: token[key] for key in ("id", "text", "logprob", "special")}]


async def test_best_of_answers_with_one_and_shows_the_others(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    asked = body_for(best_of=3, do_sample=True, details=True)
    answer = (await gateway.client.post("/lorax/generate", json=asked)).json()
    assert len(answer["details"]["best_of_sequences"]) == 2
    assert answer["details"]["best_of_sequences"][0]["generated_text"] == "base base "
    streamed = await gateway.client.post("/lorax/generate_stream", json=asked)
    assert (streamed.status_code, streamed.json()["error_type"]) == (422, "validation")


@pytest.mark.parametrize("path", ["/lorax/generate_stream", "/lorax", "/lorax/models/risk"])
async def test_a_stream_is_one_event_for_each_token(scripted_gateway: MakeGateway, path: str) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    asked = body_for(adapter_id="risk", max_new_tokens=3, details=True, return_full_text=True)
    call = gateway.call("POST", path, json={**asked, "stream": True})
    status, headers = await call.head()
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    events = events_of(await call.rest())
    assert [event["token"]["id"] for event in events] == [0, 1, 2]
    assert "".join(event["token"]["text"] for event in events) == f"{version} " * 3
    assert [event["generated_text"] for event in events] == [None, None, "hi" + f"{version} " * 3]
    assert [event["details"] is None for event in events] == [True, True, False]
    assert events[-1]["details"] == {
        "finish_reason": "length",
        "prompt_tokens": 2,
        "generated_tokens": 3,
        "seed": None,
    }
    assert gateway.holds_nothing


async def test_a_stream_that_breaks_says_so(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(fail_after_tokens=2))
    whole = await gateway.client.post("/lorax/generate", json=body_for(max_new_tokens=3))
    assert (whole.status_code, whole.json()["error_type"]) == (424, "generation")
    call = gateway.call("POST", "/lorax/generate_stream", json=body_for(max_new_tokens=3))
    assert (await call.head())[0] == 200
    events = events_of(await call.rest())
    assert events[-1]["error_type"] == "generation"
    assert events[-1]["error"]


async def test_a_dead_engine_breaks_a_stream_off(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(die_after_tokens=1))
    call = gateway.call("POST", "/lorax/generate_stream", json=body_for())
    assert (await call.head())[0] == 200
    assert events_of(await call.rest())[-1]["error_type"] == "incomplete_generation"


async def test_a_client_that_leaves_ends_its_request(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    gateway.engine.gate.clear()
    call = gateway.call("POST", "/lorax/generate_stream", json=body_for(max_new_tokens=9))
    await call.head()
    await gateway.engine.wait_active(1)
    call.leave()
    await gateway.engine.wait_gone()
    await call.task
    assert len(gateway.engine.aborted) == 1
    assert gateway.holds_nothing


async def test_a_full_queue_is_overload(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_num_seqs=1, max_queued_requests=0)
    gateway.engine.gate.clear()
    places = gateway.gateway.admission.max_running
    running = [gateway.call("POST", "/lorax/generate_stream", json=body_for()) for _ in range(places)]
    await gateway.engine.wait_active(places)
    refused = await gateway.client.post("/lorax/generate", json=body_for())
    assert (refused.status_code, refused.json()["error_type"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    gateway.engine.gate.set()
    for call in running:
        await call.head()
        await call.rest()
        await call.task


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"watermark": True}, "watermark"),
        ({"typical_p": 0.5}, "typical_p"),
        ({"decoder_input_details": True}, "decoder_input_details"),
        ({"merged_adapters": {"ids": ["a"]}}, "merged_adapters"),
        ({"adapter_source": "s3"}, "adapter_source"),
        ({"max_new_tokens": 5000}, "context"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_what_cannot_be_honoured_is_a_validation_error(
    scripted_gateway: MakeGateway, parameters: dict[str, Any], field: str
) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.post("/lorax", json=body_for(**parameters))
    told = response.json()
    assert (response.status_code, told["error_type"]) == (422, "validation")
    assert field in told["error"]


async def test_truncate_keeps_the_end_of_the_prompt(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    long = {"inputs": "a" * 5000 + "END", "parameters": {"max_new_tokens": 1, "truncate": 3}}
    assert (await gateway.client.post("/lorax/generate", json=long)).status_code == 200
    assert list(gateway.engine.requests[-1].prompt_token_ids) == list(b"END")


async def test_a_chat_template_is_used_where_asked_for(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    asked = body_for(apply_chat_template=True)
    assert (await gateway.client.post("/lorax/generate", json=asked)).status_code == 200
    assert list(gateway.engine.requests[-1].prompt_token_ids) == list(b"user: hi\n")


async def test_a_grammar_is_refused_where_constraints_are_off(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(structured_outputs=False)
    asked = body_for(grammar={"type": "regex", "value": "[a-z]+"})
    response = await gateway.client.post("/lorax/generate", json=asked)
    assert (response.status_code, response.json()["error_type"]) == (422, "validation")


async def test_info_and_health_say_what_serves(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    info = (await gateway.client.get("/lorax/info")).json()
    assert (info["model_id"], info["max_total_tokens"]) == ("scripted", 4096)
    assert (await gateway.client.get("/lorax/health")).status_code == 200
    gateway.gateway.phase = Phase.DRAINING
    ill = await gateway.client.get("/lorax/health")
    assert (ill.status_code, ill.json()["error_type"]) == (503, "engine_not_ready")


async def test_wrong_routes_and_bodies_are_told_in_the_same_shape(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_body_kib=1)
    for status, response in (
        (404, await gateway.client.get("/lorax/nothing")),
        (405, await gateway.client.get("/lorax/generate")),
        (400, await gateway.client.post("/lorax/generate", content=b"{")),
        (413, await gateway.client.post("/lorax/generate", content=b"x" * 2000)),
    ):
        assert response.status_code == status
        assert set(response.json()) == {"error", "error_type"}
        assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize(
    ("reason", "stop_reason", "told"),
    [
        ("length", None, "length"),
        ("stop", None, "eos_token"),
        ("stop", 2, "eos_token"),
        ("stop", "END", "stop_sequence"),
    ],
)
def test_why_an_answer_ended(reason: str, stop_reason: str | int | None, told: str) -> None:
    sequence = SequenceAnswer(0, finish_reason=reason, stop_reason=stop_reason)
    assert finish_reason(sequence) == told
