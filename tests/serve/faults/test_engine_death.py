"""Rows 20 and 21: the engine dies, dies over and over, or stands still. With the real engine's process: live/."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.engine.scripted import Script
from serve.server import EXIT_ENGINE_DIED
from tests.patience import patient
from tests.serve.asgi_call import events_of
from tests.serve.conftest import READY_SECONDS, STOP_SECONDS, RunningServer
from tests.serve.faults.client import ABORT_SECONDS, REPLY_SECONDS, holds_nothing, refusal, until

ROUTES = ["/generate", "/v1/chat/completions", "/v1/completions"]
PROJECT = Path(__file__).resolve().parents[3]
STALL_SECONDS = 0.3
_POLL_SECONDS = 0.05
_LISTENING = re.compile(r"listening on (http://\S+);")


def body_for(route: str, name: str, *, stream: bool, tokens: int = 3) -> dict[str, Any]:
    if route == "/generate":
        return {"prompt": "a", "adapter": name, "max_tokens": tokens, "stream": stream}
    asked = {"model": name, "max_tokens": tokens, "stream": stream}
    if route == "/v1/completions":
        return {**asked, "prompt": "a"}
    return {**asked, "messages": [{"role": "user", "content": "a"}]}


def text_of(answer: httpx.Response, route: str, *, stream: bool) -> str:
    """The words of an answer that is complete."""
    assert answer.status_code == 200, answer.text
    if route == "/generate":
        if not stream:
            return str(answer.json()["text"])
        events = events_of(answer.content)
        assert events[-1][0] == "done"
        return "".join(fields["text"] for name, fields in events if name == "delta")
    if not stream:
        choice = answer.json()["choices"][0]
        return str(choice["text"] if route == "/v1/completions" else choice["message"]["content"])
    *parts, done, _ = answer.text.split("\n\n")
    assert done == "data: [DONE]"
    choices = [json.loads(part.removeprefix("data: "))["choices"][0] for part in parts]
    return "".join(c["text"] if route == "/v1/completions" else c["delta"]["content"] for c in choices)


async def with_adapter(server: RunningServer, name: str = "risk") -> str:
    """Load an adapter; returns its version."""
    source = server.make_adapter(name)
    loaded = await server.client.post("/admin/adapters", json={"name": name, "source": source})
    assert loaded.status_code == 201, loaded.text
    return str(loaded.json()["adapter"]["live"])


async def ready_again(server: RunningServer) -> None:
    async with asyncio.timeout(patient(20)):
        while (await server.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)


def metric(server: RunningServer, name: str, **labels: str) -> float:
    return server.gateway.metrics.registry.get_sample_value(f"hotswap_{name}", labels) or 0.0


async def live(server: RunningServer) -> dict[str, str]:
    listed = (await server.client.get("/admin/adapters")).json()["adapters"]
    return {adapter["name"]: adapter["live"] for adapter in listed}


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize("route", ROUTES)
async def test_b5_20_what_had_sent_nothing_is_answered_by_the_next_engine(running_server, route, stream):
    server = await running_server()
    version = await with_adapter(server)
    server.engine.script.ttft_seconds = 600.0
    asked = [
        asyncio.create_task(server.client.post(route, json=body_for(route, "risk", stream=stream)))
        for _ in range(5)
    ]
    await server.engine.wait_active(5)
    server.engine.script.ttft_seconds = 0.0
    server.engine.die()
    answers = [await task for task in asked]
    assert [text_of(answer, route, stream=stream) for answer in answers] == [f"{version} " * 3] * 5
    assert metric(server, "retried_requests_total") == 5
    assert await live(server) == {"risk": version}
    assert holds_nothing(server)


@pytest.mark.parametrize("route", ["/generate", "/v1/chat/completions"])
async def test_b5_20_a_stream_that_has_begun_ends_with_one_error_event(running_server, route):
    server = await running_server(Script(die_after_tokens=2, deaths=1))
    version = await with_adapter(server)
    answer = await server.client.post(route, json=body_for(route, "risk", stream=True))
    assert answer.status_code == 200
    if route == "/generate":
        events = events_of(answer.content)
        assert [name for name, _ in events] == ["delta", "delta", "error"]
        error = events[-1][1]["error"]
    else:
        *deltas, last, done, _ = answer.text.split("\n\n")
        assert (len(deltas), done) == (2, "data: [DONE]")
        error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "engine_dead"
    await ready_again(server)
    again = await server.client.post(route, json=body_for(route, "risk", stream=True))
    assert text_of(again, route, stream=True) == f"{version} " * 3


async def test_b5_20_what_waits_for_a_place_goes_to_the_next_engine_too(running_server):
    server = await running_server(max_num_seqs=1)
    server.engine.script.ttft_seconds = 600.0
    asked = [
        asyncio.create_task(server.client.post("/generate", json={"prompt": "a", "max_tokens": 1}))
        for _ in range(6)
    ]
    await until(lambda: server.gateway.admission.queued_requests == 4, "four wait")
    server.engine.script.ttft_seconds = 0.0
    server.engine.die()
    assert [(await task).json()["text"] for task in asked] == ["base "] * 6
    assert metric(server, "retried_requests_total") == 2


async def test_b5_20_new_work_is_sent_away_while_there_is_no_engine(running_server):
    server = await running_server()
    version = await with_adapter(server)
    server.engine.script.start_seconds = 600.0
    server.engine.die()
    not_ready = await server.client.get("/readyz")
    while not_ready.status_code == 200:
        not_ready = await server.client.get("/readyz")
    for answer in [
        not_ready,
        await server.client.post("/generate", json={"prompt": "a"}),
        await server.client.post("/v1/completions", json=body_for("/v1/completions", "risk", stream=True)),
    ]:
        assert answer.status_code == 503
        assert refusal(answer)["code"] == "engine_not_ready"
        assert answer.headers["retry-after"] == "5"
    assert (await server.client.get("/livez")).status_code == 200
    assert await live(server) == {"risk": version}
    metrics = (await server.client.get("/metrics")).text
    assert "hotswap_ready 0.0" in metrics
    assert "hotswap_engine_up 0.0" in metrics


async def test_b5_20_a_second_death_is_told(running_server):
    server = await running_server(Script(die_after_tokens=0, deaths=2))
    answer = await server.client.post("/generate", json={"prompt": "a"})
    assert answer.status_code == 503
    assert refusal(answer)["code"] == "engine_dead"
    assert "retry-after" in answer.headers
    assert holds_nothing(server)


async def test_b5_20_who_waits_for_an_engine_waits_no_longer_than_the_deadline(running_server):
    server = await running_server(request_seconds=0.4)
    server.engine.script.ttft_seconds = 600.0
    asked = asyncio.create_task(server.client.post("/generate", json={"prompt": "a"}))
    await server.engine.wait_active(1)
    server.engine.script.start_seconds = 600.0
    server.engine.die()
    answer = await asked
    assert answer.status_code == 504
    assert refusal(answer)["code"] == "deadline_exceeded"
    assert holds_nothing(server)


async def test_b5_20_a_client_that_leaves_while_it_waits_for_an_engine_is_not_asked_for(running_server):
    server = await running_server()
    server.engine.script.ttft_seconds = 600.0
    asked = asyncio.create_task(server.client.post("/generate", json={"prompt": "a"}))
    await server.engine.wait_active(1)
    server.engine.script.start_seconds = 0.3
    server.engine.die()
    asked.cancel()
    await until(lambda: len(server.gateway.running) == 0, "the client is forgotten")
    await ready_again(server)
    assert len(server.engine.requests) == 1


async def test_b5_20_a_load_that_the_engine_does_not_survive_is_told_and_taken_back(running_server):
    server = await running_server()
    version = await with_adapter(server)
    server.make_adapter("other", seed=1)
    server.engine.script.load_seconds = 600.0
    loading = asyncio.create_task(
        server.client.post("/admin/adapters", json={"name": "risk", "source": "other"})
    )
    await until(lambda: server.gateway.adapters.busy == 1, "it loads")
    await asyncio.sleep(patient(0.2))
    server.engine.script.load_seconds = 0.0
    server.engine.die()
    answer = await loading
    assert answer.status_code == 503
    await ready_again(server)
    assert await live(server) == {"risk": version}


def test_b5_20_a_crash_loop_ends_the_server_with_its_own_code_and_the_reason(tmp_path, clean_environment):
    script = {"die_after_tokens": 0}
    settings = {"home": str(tmp_path / "home"), "engine_max_restarts": 1, "drain_seconds": 1}
    log = tmp_path / "server.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.serve.faults.scripted_server",
                json.dumps(script),
                json.dumps(settings),
            ],
            stdout=subprocess.DEVNULL,
            stderr=written,
            cwd=PROJECT,
        )
    try:
        url = wait_ready(process, log)
        assert httpx.post(f"{url}/generate", json={"prompt": "a"}, timeout=30).status_code == 503
        assert process.wait(STOP_SECONDS) == EXIT_ENGINE_DIED
    finally:
        process.kill()
        process.wait()
    said = log.read_text(encoding="utf-8")
    assert "it was started again 1 times within 600 s" in said
    assert "--engine-max-restarts" in said


def wait_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    """The server's address, once it is ready."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        match = _LISTENING.search(log.read_text(encoding="utf-8"))
        with contextlib.suppress(httpx.TransportError):
            if match is not None and httpx.get(f"{match[1]}/readyz", timeout=patient(5)).status_code == 200:
                return match[1]
        time.sleep(_POLL_SECONDS)
    raise AssertionError(log.read_text(encoding="utf-8"))


async def test_b5_21_a_standing_engine_takes_no_new_work_and_goes_on_by_itself(running_server):
    server = await running_server(engine_stall_seconds=STALL_SECONDS)
    version = await with_adapter(server)
    server.engine.script.tpot_seconds = 0.01
    asked = asyncio.create_task(
        server.client.post("/generate", json=body_for("/generate", "risk", stream=True, tokens=20))
    )
    await server.engine.wait_active(1)
    server.engine.hang()
    not_ready = await server.client.get("/readyz")
    async with asyncio.timeout(STALL_SECONDS + ABORT_SECONDS):
        while not_ready.status_code == 200:
            await asyncio.sleep(0.01)
            not_ready = await server.client.get("/readyz")
    assert "no sign of life" in refusal(not_ready)["message"]
    refused = await server.client.post("/generate", json={"prompt": "a"})
    assert refused.status_code == 503
    assert refusal(refused)["code"] == "engine_not_ready"
    assert "hotswap_engine_up 0.0" in (await server.client.get("/metrics")).text
    server.engine.resume()
    assert text_of(await asked, "/generate", stream=True) == f"{version} " * 20
    async with asyncio.timeout(ABORT_SECONDS):
        await ready_again(server)
    assert metric(server, "engine_restarts_total", cause="hung") == 0


async def test_b5_21_an_engine_that_stands_for_long_is_replaced(running_server):
    server = await running_server(engine_stall_seconds=STALL_SECONDS, engine_hang_seconds=2 * STALL_SECONDS)
    version = await with_adapter(server)
    server.engine.hang()
    asked = asyncio.create_task(
        server.client.post("/generate", json=body_for("/generate", "risk", stream=False))
    )
    assert text_of(await asked, "/generate", stream=False) == f"{version} " * 3
    assert metric(server, "engine_restarts_total", cause="hung") == 1
    assert metric(server, "retried_requests_total") == 1
    assert await live(server) == {"risk": version}


async def test_b5_21_requests_in_a_standing_engine_end_at_their_deadline_and_their_late_tokens_are_dropped(
    running_server,
):
    server = await running_server(engine_stall_seconds=STALL_SECONDS, request_seconds=0.5)
    server.engine.hang()
    answer = await server.client.post("/generate", json={"prompt": "a"})
    assert answer.status_code == 504
    assert refusal(answer)["code"] == "deadline_exceeded"
    server.engine.resume()
    async with asyncio.timeout(REPLY_SECONDS + ABORT_SECONDS):
        await ready_again(server)
    assert (await server.client.post("/generate", json={"prompt": "b", "max_tokens": 1})).json()[
        "text"
    ] == "base "
    assert len(server.engine.aborted) == 1
    assert holds_nothing(server)
