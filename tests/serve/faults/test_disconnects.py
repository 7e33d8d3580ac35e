"""Rows 19 and 23: clients that leave, and requests that take too long. Nothing of them stays behind."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from serve.engine.scripted import Script
from tests.patience import patient
from tests.serve.asgi_call import events_of
from tests.serve.faults.client import (
    ABORT_SECONDS,
    aborts,
    holds_nothing,
    http,
    refusal,
    undisturbed,
    until,
    wire,
)

FOREVER_SECONDS = 600.0
DEADLINE_SECONDS = 0.4
ROUTES = ["/generate", "/v1/chat/completions"]


def body_for(route: str, name: str, **options: Any) -> dict[str, Any]:
    if route == "/generate":
        return {"prompt": "a", "adapter": name, "max_tokens": 10, **options}
    return {"model": name, "messages": [{"role": "user", "content": "a"}], "max_tokens": 10, **options}


async def with_adapter(server) -> str:
    source = server.make_adapter("risk")
    loaded = await server.client.post("/admin/adapters", json={"name": "risk", "source": source})
    assert loaded.status_code == 201
    server.engine.requests.clear()
    return "risk"


def in_flight(server) -> int:
    return sum(managed.in_flight for managed in server.gateway.adapters.board.versions())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "moment", ["before the first token", "in the middle of a stream", "without a stream"]
)
async def test_b5_19_a_client_that_leaves_is_gone_from_the_engine_within_two_seconds(
    running_server, route, moment
):
    server = await running_server()
    name = await with_adapter(server)
    stream = moment != "without a stream"
    if moment == "before the first token":
        server.engine.script.ttft_seconds = FOREVER_SECONDS
    else:
        server.engine.gate.clear()
    async with wire(server) as line:
        await line.send(http("POST", route, body_for(route, name, stream=stream)))
        async with asyncio.timeout(patient(5)):
            await server.engine.wait_active(1)
            if moment == "in the middle of a stream":
                assert name.encode() in await line.reader.readuntil(b"\n\n")
        assert in_flight(server) == 1
        assert server.gateway.admission.running == 1
        line.leave()
        async with asyncio.timeout(ABORT_SECONDS):
            await server.engine.wait_gone()
    await until(lambda: holds_nothing(server), "slot and lease are free")
    assert len(server.engine.aborted) == 1
    assert aborts(server, "client") == 1
    server.engine.script.ttft_seconds = 0
    server.engine.gate.set()
    async with undisturbed(server):
        pass
    assert aborts(server, "client") == 1


@pytest.mark.parametrize("route", ROUTES)
async def test_b5_19_a_client_that_leaves_the_queue_never_reaches_the_engine(running_server, route):
    server = await running_server(max_num_seqs=1)
    name = await with_adapter(server)
    server.engine.gate.clear()
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        good = [asyncio.create_task(client.post(route, json=body_for(route, "scripted"))) for _ in range(2)]
        async with asyncio.timeout(patient(5)):
            await server.engine.wait_active(2)
        async with wire(server) as line:
            await line.send(http("POST", route, body_for(route, name, stream=True)))
            await until(lambda: server.gateway.admission.queued_requests == 1, "it waits")
            assert in_flight(server) == 1
            line.leave()
            await until(
                lambda: server.gateway.admission.queued_requests == 0, "its place in the queue is free"
            )
        await until(lambda: in_flight(server) == 0, "its lease is given back")
        assert aborts(server, "client") == 1
        assert len(server.engine.active) == 2  # the good ones go on
        server.engine.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*good)] == [200, 200]
    assert len(server.engine.requests) == 2
    assert server.engine.aborted == []
    assert holds_nothing(server)


async def test_b5_19_of_a_prompt_list_every_prompt_is_aborted(running_server):
    server = await running_server()
    server.engine.gate.clear()
    async with wire(server) as line:
        await line.send(http("POST", "/generate", {"prompt": ["a", "b", "c"], "max_tokens": 10}))
        async with asyncio.timeout(patient(5)):
            await server.engine.wait_active(3)
        line.leave()
        async with asyncio.timeout(ABORT_SECONDS):
            await server.engine.wait_gone()
    await until(lambda: holds_nothing(server), "slot and lease are free")
    assert len(server.engine.aborted) == 3
    assert aborts(server, "client") == 1


async def test_b5_19_a_client_that_leaves_in_the_middle_of_its_body_starts_nothing(running_server):
    server = await running_server()
    async with undisturbed(server), wire(server) as line:
        await line.send(b'POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"prompt')
        line.leave()
    assert len(server.gateway.running) == 0


@pytest.mark.parametrize("route", ROUTES)
async def test_b5_23_a_request_past_its_deadline_gets_504_and_leaves_the_engine(running_server, route):
    server = await running_server(
        script=Script(ttft_seconds=FOREVER_SECONDS), request_seconds=DEADLINE_SECONDS
    )
    for stream in (False, True):  # nothing was sent yet: a stream gets its status as well
        answer = await server.client.post(route, json=body_for(route, "scripted", stream=stream))
        assert (answer.status_code, refusal(answer)["code"]) == (504, "deadline_exceeded")
        assert DEADLINE_SECONDS <= answer.elapsed.total_seconds() < DEADLINE_SECONDS + patient(1)
        await until(lambda: holds_nothing(server), "slot and lease are free")
    assert len(server.engine.aborted) == 2
    assert aborts(server, "deadline") == 2
    assert (await server.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
async def test_b5_23_a_stream_past_its_deadline_ends_with_one_error_event(running_server, route):
    server = await running_server(request_seconds=DEADLINE_SECONDS)
    server.engine.gate.clear()
    answer = await server.client.post(route, json=body_for(route, "scripted", stream=True))
    assert answer.status_code == 200
    if route == "/generate":
        events = events_of(answer.content)
        assert [name for name, _ in events] == ["delta", "error"]
        error = events[-1][1]["error"]
    else:
        _, last, done, end = answer.text.split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        error = httpx.Response(200, content=last.removeprefix("data: ")).json()["error"]
    assert error["code"] == "deadline_exceeded"
    assert error["request_id"] == answer.headers["x-request-id"]
    await until(lambda: holds_nothing(server), "slot and lease are free")
    assert len(server.engine.aborted) == 1
    assert aborts(server, "deadline") == 1


async def test_b5_23_the_time_in_the_queue_counts(running_server):
    server = await running_server(max_num_seqs=1, request_seconds=DEADLINE_SECONDS)
    admission = server.gateway.admission
    async with admission.slot(sequences=admission.max_running, prompt_tokens=1):  # nobody else gets in
        answer = await server.client.post("/generate", json={"prompt": "a", "max_tokens": 5})
        assert (answer.status_code, refusal(answer)["code"]) == (504, "deadline_exceeded")
        assert admission.queued_requests == 0
    assert server.engine.requests == []
    assert aborts(server, "deadline") == 1
    await until(lambda: holds_nothing(server), "nothing is left")


async def test_b5_23_whoever_waits_too_long_for_a_turn_gets_504_and_the_engine_never_hears_of_it(
    running_server,
):
    server = await running_server(max_num_seqs=1, queue_seconds=DEADLINE_SECONDS)
    admission = server.gateway.admission
    async with admission.slot(sequences=admission.max_running, prompt_tokens=1):  # nobody else gets in
        for route in ROUTES:
            for stream in (False, True):
                answer = await server.client.post(route, json=body_for(route, "scripted", stream=stream))
                assert (answer.status_code, refusal(answer)["code"]) == (504, "deadline_exceeded")
                assert "did not get its turn" in refusal(answer)["message"]
        assert admission.queued_requests == 0
    assert server.engine.requests == []
    assert aborts(server, "queue_deadline") == 2 * len(ROUTES)
    await until(lambda: holds_nothing(server), "nothing is left")


@pytest.mark.parametrize("route", ROUTES)
async def test_b5_23_a_stream_without_a_first_token_in_time_gets_504_and_leaves_the_engine(
    running_server, route
):
    server = await running_server(
        script=Script(ttft_seconds=3 * DEADLINE_SECONDS), first_token_seconds=DEADLINE_SECONDS
    )
    answer = await server.client.post(route, json=body_for(route, "scripted", stream=True))
    assert (answer.status_code, refusal(answer)["code"]) == (504, "deadline_exceeded")
    assert "had no token" in refusal(answer)["message"]
    await until(lambda: holds_nothing(server), "slot and lease are free")
    assert len(server.engine.aborted) == 1
    assert aborts(server, "first_token_deadline") == 1
    # Of an answer that comes whole nobody sees the first token.
    assert (
        await server.client.post(route, json=body_for(route, "scripted", stream=False))
    ).status_code == 200
    server.engine.script.ttft_seconds = 0
    answer = await server.client.post(route, json=body_for(route, "scripted", stream=True))
    assert answer.status_code == 200
    assert aborts(server, "deadline") == 0
