"""`POST /generate` from the first byte to the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serve.engine.scripted import Script, ScriptedEngine
from serve.schemas.generate import GenerateAnswer
from tests.serve.asgi_call import AsgiCall, events_of
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]


async def ask(gateway: ScriptedGateway, **body: Any) -> dict[str, Any]:
    response = await gateway.client.post("/generate", json={"prompt": "hello", **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    GenerateAnswer.model_validate(answer)
    assert answer["id"] == response.headers["x-request-id"]
    assert gateway.holds_nothing
    return answer


async def refusal(gateway: ScriptedGateway, **body: Any) -> tuple[int, str, str | None]:
    response = await gateway.client.post("/generate", json=body)
    error = response.json()["error"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert gateway.holds_nothing
    return response.status_code, error["code"], error["param"]


def start_stream(gateway: ScriptedGateway, **body: Any) -> AsgiCall:
    return gateway.call("POST", "/generate", json={"prompt": "hello", "stream": True, **body})


async def stream(gateway: ScriptedGateway, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    call = start_stream(gateway, **body)
    status, headers = await call.head()
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    events = events_of(await call.rest())
    await call.task
    assert gateway.holds_nothing
    return events


async def test_a_prompt_is_enough(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_tokens_default=3)
    answer = await ask(gateway)
    assert answer["text"] == "base base base "
    assert (answer["model"], answer["adapter"]) == ("scripted", None)
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 3}
    assert answer["finish_reason"] == "length"
    assert "results" not in answer
    assert "choices" not in answer
    assert 0 <= answer["timing"]["queue_ms"] <= answer["timing"]["total_ms"]
    assert 0 <= answer["timing"]["ttft_ms"] <= answer["timing"]["total_ms"]


async def test_curls_own_content_type_will_do(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.post(
        "/generate",
        content=b'{"prompt": "x", "max_tokens": 1}',
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 200


async def test_a_conversation_goes_through_the_template(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    answer = await ask(gateway, prompt=None, messages=[{"role": "user", "content": "hi"}], max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == len("user: hi\n")


async def test_an_adapter_answers_under_its_versions_name(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    for reference in ("risk", version):
        answer = await ask(gateway, adapter=reference, max_tokens=1)
        assert (answer["text"], answer["adapter"]) == (f"{version} ", version)


@pytest.mark.parametrize("adapter", ["risk", "risk@3f2a91c0", "Scripted", "none"])
async def test_an_unknown_adapter_is_never_the_base(scripted_gateway: MakeGateway, adapter: str) -> None:
    gateway = await scripted_gateway()
    assert await refusal(gateway, prompt="x", adapter=adapter) == (404, "model_not_found", "adapter")
    assert gateway.engine.requests == []


async def test_several_sequences_are_choices(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    answer = await ask(gateway, n=3, max_tokens=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["text"] for choice in answer["choices"]} == {"base base "}
    assert answer["text"] == "base base "
    assert answer["usage"]["completion_tokens"] == 6


async def test_several_prompts_are_answered_in_order(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_num_seqs=1)  # most of them wait for each other
    prompts = ["a" * length for length in (3, 1, 4, 1, 5)]
    answer = await ask(gateway, prompt=prompts, n=2, max_tokens=2)
    results = answer["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4]
    assert [result["usage"]["prompt_tokens"] for result in results] == [3, 1, 4, 1, 5]
    assert all(len(result["choices"]) == 2 for result in results)
    assert answer["usage"] == {"prompt_tokens": 14, "completion_tokens": 20}
    assert "text" not in answer
    ids = [request.request_id for request in gateway.engine.requests]
    assert len(set(ids)) == 5
    assert all(request_id.startswith(answer["id"]) for request_id in ids)


async def test_a_list_of_one_is_still_a_list(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    assert len((await ask(gateway, prompt=["x"], max_tokens=1))["results"]) == 1


async def test_one_failing_prompt_fails_the_list_and_ends_the_others(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(fail_after_tokens=1))
    status, code, _ = await refusal(gateway, prompt=["a", "b", "c"], max_tokens=2)
    assert (status, code) == (500, "generation_failed")


async def test_logprobs_come_with_each_token(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    answer = await ask(gateway, logprobs=1, max_tokens=2)
    first = answer["logprobs"][0]
    assert len(answer["logprobs"]) == 2
    assert first == {
        "id": 0,
        "text": "x",
        "logprob": first["logprob"],
        "top": [{"id": 0, "text": "x", "logprob": first["logprob"]}],
    }
    assert "logprobs" not in await ask(gateway, max_tokens=2)


async def test_a_stream_is_deltas_and_then_one_done(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    events = await stream(gateway, adapter="risk", max_tokens=3, n=2, logprobs=0)
    assert [name for name, _ in events] == ["delta"] * 6 + ["done"]
    texts = ["", ""]
    for _, delta in events[:-1]:
        texts[delta["index"]] += delta["text"]
        assert len(delta["logprobs"]) == 1
    assert texts == [f"{version} " * 3] * 2
    done = events[-1][1]
    assert (done["adapter"], done["model"], done["finish_reason"]) == (version, "scripted", "length")
    assert done["usage"] == {"prompt_tokens": 5, "completion_tokens": 6}
    assert [choice["index"] for choice in done["choices"]] == [0, 1]
    assert done["timing"]["ttft_ms"] <= done["timing"]["total_ms"]


async def test_a_stream_gives_the_text_of_the_whole_answer(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    whole = await ask(gateway, max_tokens=5)
    events = await stream(gateway, max_tokens=5)
    assert "".join(fields["text"] for name, fields in events if name == "delta") == whole["text"]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (Script(fail_after_tokens=2), "generation_failed"),
        (Script(die_after_tokens=2), "engine_dead"),
    ],
)
async def test_a_stream_that_fails_ends_with_one_error(
    scripted_gateway: MakeGateway, script: Script, code: str
) -> None:
    gateway = await scripted_gateway(script)
    events = await stream(gateway, max_tokens=5)
    assert [name for name, _ in events] == ["delta", "delta", "error"]
    error = events[-1][1]["error"]
    assert error["code"] == code
    assert error["request_id"].startswith("req-")


async def test_a_stream_that_fails_before_its_first_token_is_a_plain_error(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(Script(fail_after_tokens=0))
    call = start_stream(gateway)
    status, headers = await call.head()
    assert (status, headers["content-type"]) == (500, "application/json")
    await call.rest()


class QuietEngine(ScriptedEngine):
    """Ends its answer without a finish reason."""

    async def generate(self, request):
        async for output in super().generate(request):
            for delta in output.deltas:
                delta.finish_reason = None
            yield output


async def test_a_stream_never_ends_in_silence(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(engine=QuietEngine())
    events = await stream(gateway, max_tokens=2)
    assert [name for name, _ in events] == ["delta", "delta", "error"]


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_is_out_of_the_engine(
    scripted_gateway: MakeGateway, streaming: bool
) -> None:
    gateway = await scripted_gateway()
    await gateway.load("risk")
    gateway.engine.gate.clear()
    call = start_stream(gateway, adapter="risk", stream=streaming, max_tokens=9)
    await gateway.engine.wait_active(1)
    call.leave()
    await call.task
    await gateway.engine.wait_gone()
    assert gateway.holds_nothing
    assert len(gateway.engine.aborted) == 1
    aborts = gateway.gateway.metrics.registry.get_sample_value("hotswap_aborts_total", {"reason": "client"})
    assert aborts == 1


async def test_a_client_that_leaves_while_it_waits_never_reaches_the_engine(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(max_num_seqs=1)
    gateway.engine.gate.clear()
    running = [start_stream(gateway, max_tokens=2) for _ in range(gateway.gateway.admission.max_running)]
    await gateway.engine.wait_active(len(running))
    waiting = start_stream(gateway)
    while gateway.gateway.admission.queued_requests == 0:
        await asyncio.sleep(0)
    waiting.leave()
    await waiting.task
    assert gateway.gateway.admission.queued_requests == 0
    assert len(gateway.engine.requests) == len(running)
    gateway.engine.gate.set()
    for call in running:
        await call.head()
        assert events_of(await call.rest())[-1][0] == "done"
        await call.task
    assert gateway.holds_nothing


async def test_a_deadline_ends_a_stream_with_an_error_event(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(request_seconds=0.05)
    gateway.engine.gate.clear()
    events = await stream(gateway, max_tokens=9)
    assert [name for name, _ in events] == ["delta", "error"]
    assert events[-1][1]["error"]["code"] == "deadline_exceeded"


async def test_a_reader_that_stops_is_dropped(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(send_seconds=0.02)
    call = gateway.call(
        "POST", "/generate", json={"prompt": "x", "stream": True, "max_tokens": 50}, slow=True
    )
    await call.head()
    await call.task  # nobody reads on
    assert gateway.holds_nothing
    assert len(gateway.engine.aborted) == 1


async def test_unloading_ends_a_stream_with_its_reason(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    gateway.engine.gate.clear()
    call = start_stream(gateway, adapter="risk", max_tokens=9)
    await gateway.engine.wait_active(1)
    await gateway.gateway.adapters.unload("risk", actor="test", drain_seconds=0)
    assert (await call.head())[0] == 200
    name, fields = events_of(await call.rest())[-1]
    assert (name, fields["error"]["code"]) == ("error", "aborted")
    assert version in fields["error"]["message"]
    assert gateway.holds_nothing


async def test_a_full_queue_is_429_with_retry_after(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_num_seqs=1, max_queued_requests=0)
    gateway.engine.gate.clear()
    running = [start_stream(gateway, max_tokens=2) for _ in range(gateway.gateway.admission.max_running)]
    await gateway.engine.wait_active(len(running))
    response = await gateway.client.post("/generate", json={"prompt": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    gateway.engine.gate.set()
    for call in running:
        await call.head()
        await call.rest()
        await call.task


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "x", "max_tokens": 5000}, (400, "context_length_exceeded", "max_tokens")),
        ({"prompt": "x" * 4096}, (400, "context_length_exceeded", "prompt")),
        ({"prompt": "x" * 5000}, (400, "context_length_exceeded", "prompt")),
        ({"prompt": "x", "lora_path": "/etc"}, (422, "validation_error", "lora_path")),
        ({"prompt": "x", "temperature": 3}, (422, "validation_error", "temperature")),
        ({}, (422, "validation_error", "body")),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_cannot_be_served_never_reaches_the_engine(
    scripted_gateway: MakeGateway, body: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    gateway = await scripted_gateway()
    assert await refusal(gateway, **body) == expected
    assert gateway.engine.requests == []


async def test_constraints_can_be_switched_off(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(structured_outputs=False)
    body = {"prompt": "x", "response_format": {"type": "json_object"}}
    assert await refusal(gateway, **body) == (400, "invalid_grammar", "response_format")


async def test_a_request_is_counted_under_its_adapter(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = (await gateway.load("risk")).partition("@")[2]
    await ask(gateway, adapter="risk", max_tokens=4)
    await refusal(gateway, prompt="x", adapter="nobody")
    value = gateway.gateway.metrics.registry.get_sample_value
    risk, unknown = {"adapter": "risk", "version": version}, {"adapter": "unknown", "version": ""}
    assert value("hotswap_requests_total", {"route": "/generate", "status": "200", **risk}) == 1
    assert value("hotswap_requests_total", {"route": "/generate", "status": "404", **unknown}) == 1
    assert value("hotswap_errors_total", {"code": "model_not_found", **unknown}) == 1
    assert value("hotswap_completion_tokens_total", risk) == 4
    assert value("hotswap_ttft_seconds_count", risk) == 1
    assert "nobody" not in gateway.gateway.metrics.render().decode()


class BuggyEngine(ScriptedEngine):
    async def generate(self, request):
        raise LookupError("/a/path/of/this/machine")
        yield


async def test_a_bug_is_a_500_that_gives_nothing_away(
    scripted_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await scripted_gateway(engine=BuggyEngine(), raise_app_exceptions=False)
    status, code, _ = await refusal(gateway, prompt="x")
    assert (status, code) == (500, "internal_error")
    assert "/a/path" in caplog.text
