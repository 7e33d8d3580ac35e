"""The real engine's process is killed, stopped, and left behind; what the server's clients see of it.

In this order, on one server: each test leaves it as it found it, but for the last, which kills it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from tests.patience import patient
from tests.serve.live.live_server import LiveServer
from tests.serve.live.sse import async_events
from tests.serve.live.thinking_base import make_thinking_home

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

NAMES = ("left", "right")
TOKENS = 450  # of a context of 512
NOTICED_SECONDS = patient(2.0)
STALL_SECONDS = 3.0
READY_SECONDS = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server on a tiny base with two adapters."""
    home = tmp_path_factory.mktemp("killed-home")
    base = make_thinking_home(home, NAMES)
    live = LiveServer(
        home,
        f"--base={base}",
        "--dtype=float32",
        "--kv-cache-gib=0.1",
        "--max-num-seqs=8",
        "--max-loras=2",
        "--max-lora-rank=8",
        f"--engine-stall-seconds={STALL_SECONDS}",
    )
    with live:
        with live.client() as client:
            for name in NAMES:
                loaded = client.post("/admin/adapters", json={"name": name, "source": name})
                assert loaded.status_code == 201, loaded.text
        yield live


def engine_core(server: LiveServer) -> psutil.Process:
    """The process that computes."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    (core,) = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
    return core


def alive(process: psutil.Process) -> bool:
    """Not gone, and not waiting for whoever adopted it to notice its end."""
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def live_versions(server: LiveServer) -> dict[str, str]:
    with server.client() as client:
        return {a["name"]: a["live"] for a in client.get("/admin/adapters").json()["adapters"]}


def ready(server: LiveServer) -> httpx.Response:
    return httpx.get(f"{server.url}/readyz", timeout=10)


def body(who: str | None, tokens: int, **more: Any) -> dict[str, Any]:
    return {"prompt": "When?\n", "adapter": who, "max_tokens": tokens, "ignore_eos": True, **more}


@dataclass
class Stream:
    """A stream that was being read when the engine went."""

    first: asyncio.Event
    names: list[str]
    error: dict[str, Any] | None = None

    async def read(self, client: httpx.AsyncClient, who: str | None) -> None:
        async with client.stream("POST", "/generate", json=body(who, TOKENS, stream=True)) as response:
            async for name, fields in async_events(response.aiter_lines()):
                self.names.append(name)
                self.first.set()
                if name == "error":
                    self.error = fields["error"]


async def ask(client: httpx.AsyncClient, who: str | None) -> str:
    response = await client.post("/generate", json=body(who, TOKENS))
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["adapter"] or "base").partition("@")[0] == (who or "base")
    return str(answer["text"])


async def chat(client: httpx.AsyncClient, who: str | None, *, stream: bool) -> httpx.Response:
    message = {"role": "user", "content": "When?"}
    asked = {"model": who or "thinking", "messages": [message], "max_tokens": TOKENS, "ignore_eos": True}
    return await client.post("/v1/chat/completions", json={**asked, "stream": stream})


async def test_kill_9_under_load_loses_only_what_had_begun_to_answer(server: LiveServer) -> None:
    before, versions, dead = ready(server).json(), live_versions(server), engine_core(server)
    async with server.async_client() as client:
        expected = {who: await ask(client, who) for who in (None, *NAMES)}
        streams = [Stream(asyncio.Event(), []) for _ in range(4)]
        readers = [
            asyncio.create_task(stream.read(client, who))
            for stream, who in zip(streams, (None, *NAMES, None), strict=True)
        ]
        whole = [(who, asyncio.create_task(ask(client, who))) for who in (None, *NAMES) * 8]
        chats = [asyncio.create_task(chat(client, who, stream=s)) for who in NAMES for s in (True, False)]
        await asyncio.gather(*(stream.first.wait() for stream in streams))
        dead.send_signal(signal.SIGKILL)
        noticed = await asyncio.to_thread(
            server.wait_until, lambda: ready(server).status_code == 503, NOTICED_SECONDS
        )
        refused = await client.post("/generate", json=body(None, 1))
        lives = await client.get("/livez")
        await asyncio.gather(*readers)
        answers = [(who, await task) for who, task in whole]
        chatted = [await task for task in chats]
    assert noticed < NOTICED_SECONDS
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_not_ready")
    assert "started again" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert lives.status_code == 200
    for stream in streams:
        assert stream.error is not None
        assert stream.error["code"] == "engine_dead"
        assert set(stream.names[:-1]) == {"delta"}
    assert all(text == expected[who] for who, text in answers)
    for response in chatted:
        assert response.status_code == 200, response.text
        assert "error" not in response.text
    assert ready(server).json() | {"running": 0, "queued": 0} == before
    assert live_versions(server) == versions
    assert engine_core(server).pid != dead.pid
    assert not alive(dead)
    assert server.metric('hotswap_engine_restarts_total{cause="died"}') == 1
    assert server.metric("hotswap_retried_requests_total") >= 1
    assert server.metric("hotswap_engine_restart_seconds_count") == 1


async def test_the_new_engine_answers_as_the_old_one_did(server: LiveServer) -> None:
    async with server.async_client() as client:
        texts = {who: await ask(client, who) for who in (None, *NAMES)}
        listed = (await client.get("/v1/models")).json()["data"]
    assert len(set(texts.values())) >= 1
    assert {card["id"] for card in listed} >= set(NAMES)
    assert server.metric("hotswap_in_flight_requests") == 0


async def test_a_stopped_engine_takes_no_new_work_and_goes_on_by_itself(server: LiveServer) -> None:
    core = engine_core(server)
    async with server.async_client() as client:
        stream = Stream(asyncio.Event(), [])
        reader = asyncio.create_task(stream.read(client, "left"))
        leaver = asyncio.create_task(ask(client, "right"))
        await stream.first.wait()
        core.send_signal(signal.SIGSTOP)
        try:
            off = await asyncio.to_thread(
                server.wait_until, lambda: ready(server).status_code == 503, STALL_SECONDS + NOTICED_SECONDS
            )
            why = ready(server).json()["error"]["message"]
            refused = await client.post("/generate", json=body(None, 1))
            leaver.cancel()  # what it was still to say comes after this, and is dropped
        finally:
            core.send_signal(signal.SIGCONT)
        await asyncio.to_thread(server.wait_until, lambda: ready(server).status_code == 200, NOTICED_SECONDS)
        await reader
        text = await ask(client, "right")
    assert off < STALL_SECONDS + NOTICED_SECONDS
    assert "no sign of life" in why
    assert refused.json()["error"]["code"] == "engine_not_ready"
    assert stream.names[-1] == "done"
    assert text
    assert engine_core(server).pid == core.pid
    server.wait_until(lambda: server.metric("hotswap_in_flight_requests") == 0, NOTICED_SECONDS)
    assert server.metric("vllm:num_requests_running") == 0


def test_a_killed_server_leaves_no_process_behind(server: LiveServer) -> None:
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert engine_core(server) in children
    server.process.kill()
    server.wait_until(lambda: not any(map(alive, children)), patient(10.0))
