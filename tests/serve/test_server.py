"""The whole server: behind a socket in the test's loop, and in a process with real signals."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable

import httpx
import pytest

from adapters.errors import RegistryUnavailableError
from adapters.registry.keys import KeyTable
from adapters.registry.registry import Registry
from serve.engine.scripted import Script
from serve.server import EXIT_ENGINE_DIED, EXIT_START_FAILED
from tests.patience import patient
from tests.serve.asgi_call import events_of
from tests.serve.conftest import RunningServer, ServerProcess

Run = Callable[..., Awaitable[RunningServer]]


async def test_requests_travel_through_a_real_socket(running_server: Run) -> None:
    server = await running_server()
    server.make_adapter("here")
    response = await server.client.post("/admin/adapters", json={"name": "risk", "source": "here"})
    version = response.json()["adapter"]["live"]
    body = {"prompt": "x", "adapter": "risk", "max_tokens": 3, "stream": True}
    async with server.client.stream("POST", "/generate", json=body) as stream:
        events = events_of(await stream.aread())
    assert [name for name, _ in events] == ["delta"] * 3 + ["done"]
    assert {fields["text"] for name, fields in events if name == "delta"} == {f"{version} "}


async def test_a_client_that_hangs_up_is_out_of_the_engine(running_server: Run) -> None:
    server = await running_server()
    server.engine.gate.clear()
    body = {"prompt": "x", "max_tokens": 9, "stream": True}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=patient(5)) as client,
        client.stream("POST", "/generate", json=body),
    ):
        await server.engine.wait_active(1)
    async with asyncio.timeout(2):
        await server.engine.wait_gone()
        await server.gateway.admission.wait_idle()


async def test_a_signal_lets_running_work_finish_and_ends_with_0(running_server: Run) -> None:
    server = await running_server()
    server.engine.gate.clear()
    body = {"prompt": "x", "max_tokens": 3}
    running = asyncio.create_task(server.client.post("/generate", json=body))
    await server.engine.wait_active(1)
    server.terminate()
    while (await server.client.get("/readyz")).status_code == 200:
        await asyncio.sleep(0.01)
    assert (await server.client.get("/livez")).status_code == 200
    assert (await server.client.post("/generate", json=body)).status_code == 503
    server.engine.gate.set()
    assert (await running).json()["text"] == "base base base "
    assert await server.wait_stopped() == 0


async def test_a_signal_ends_a_server_whose_registry_takes_no_more_events(
    running_server: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unavailable(registry: Registry, batch: object) -> None:
        raise RegistryUnavailableError("it does not answer")

    monkeypatch.setattr("serve.shutdown.FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(Registry, "append_events", unavailable)
    server = await running_server()
    refused = await server.client.post("/admin/adapters", json={"nothing": 1})
    assert refused.status_code == 422  # which the audit log is to hold
    server.terminate()
    assert await server.wait_stopped() == 0
    assert "the registry took no more events" in caplog.text


async def test_a_registry_that_hangs_holds_neither_long_prompts_nor_the_metrics_nor_the_end(
    running_server: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.shutdown.FLUSH_SECONDS", 0.1)
    monkeypatch.setattr("serve.build.ABORT_SECONDS", 0.1)
    server = await running_server()
    hung, asked = threading.Event(), threading.Semaphore(0)

    def hang(*_: object, **__: object) -> None:
        asked.release()
        hung.wait()
        raise RegistryUnavailableError("it does not answer")

    for name in ("append_events", "list_events", "revision", "snapshot"):
        monkeypatch.setattr(Registry, name, hang)
    monkeypatch.setattr(KeyTable, "read_valid", hang)
    audits = [asyncio.create_task(server.client.get("/admin/audit")) for _ in range(40)]
    try:
        assert await asyncio.to_thread(asked.acquire, timeout=patient(5))
        await asyncio.sleep(0.1)
        monkeypatch.setattr("serve.generation.generation.INLINE_CHARS", 1000)
        long = {"prompt": "x" * 2000, "max_tokens": 1}  # tokenised in a thread
        assert (await server.client.post("/generate", json=long)).status_code == 200
        assert (await server.client.get("/metrics")).status_code == 200
        server.terminate()
        assert await server.wait_stopped() == 0
    finally:
        hung.set()
        for task in audits:
            task.cancel()
        await asyncio.gather(*audits, return_exceptions=True)


async def test_a_signal_ends_a_server_that_cannot_drain(
    running_server: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(gateway: object, drain_seconds: float) -> None:
        raise OSError("nothing goes")

    monkeypatch.setattr("serve.server.drain", broken)
    server = await running_server()
    server.terminate()
    assert await server.wait_stopped() == 0
    assert "the server could not drain" in caplog.text


async def test_without_restarts_the_engines_death_ends_the_server_with_its_own_code(
    running_server: Run,
) -> None:
    server = await running_server(Script(die_after_tokens=0), engine_max_restarts=0)
    assert (await server.client.post("/generate", json={"prompt": "x"})).status_code == 503
    assert await server.wait_stopped() == EXIT_ENGINE_DIED


def test_sigterm_ends_the_process_with_0_and_its_adapters_come_back(
    server_process: Callable[..., ServerProcess],
) -> None:
    first = server_process()
    first.make_adapter("here")
    body = {"name": "risk", "source": "here"}
    version = httpx.post(f"{first.url}/admin/adapters", json=body, timeout=patient(5)).json()["adapter"][
        "live"
    ]
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    second = server_process()
    answer = httpx.post(
        f"{second.url}/generate", json={"prompt": "x", "adapter": "risk", "max_tokens": 1}, timeout=patient(5)
    )
    assert answer.json()["adapter"] == version


def test_a_start_that_fails_says_why_and_ends_with_its_own_code(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process("--registry-url", "mysql://nobody/registry", wait_ready=False)
    assert server.wait() == EXIT_START_FAILED
    log = server.log.read_text()
    assert "the server cannot start" in log
    assert "Traceback" not in log


def test_a_port_that_is_taken_is_named(server_process: Callable[..., ServerProcess]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = server_process("--port", str(port), wait_ready=False)
        assert server.wait() == EXIT_START_FAILED
    log = server.log.read_text()
    assert f"nothing can listen on 127.0.0.1, port {port}" in log
    assert "Traceback" not in log
