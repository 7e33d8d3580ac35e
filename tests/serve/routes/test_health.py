"""What watchers see while the server starts, serves, drains and breaks."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serve.app import create_app
from serve.build import http_limits
from serve.engine.scripted import Script
from serve.settings import ServeSettings
from serve.shutdown import drain
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]


async def statuses(client: httpx.AsyncClient) -> dict[str, int]:
    paths = ("/livez", "/readyz", "/metrics", "/v1/models")
    return {path: (await client.get(path)).status_code for path in paths}


async def test_while_the_engine_starts_the_process_lives_and_is_not_ready(
    make_settings: Callable[..., ServeSettings],
) -> None:
    app = create_app(lambda _: contextlib.nullcontext(), http_limits(make_settings()))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        assert await statuses(client) == {"/livez": 200, "/readyz": 503, "/metrics": 200, "/v1/models": 503}
        response = await client.post("/generate", json={"prompt": "x"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_not_ready")
        assert response.headers["retry-after"] == "5"


async def test_a_ready_server_says_what_it_serves(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    await gateway.load("risk")
    response = await gateway.client.get("/readyz")
    assert response.json() == {
        "status": "ready",
        "base": "scripted",
        "adapters": 1,
        "running": 0,
        "queued": 0,
    }
    assert await statuses(gateway.client) == dict.fromkeys(
        ("/livez", "/readyz", "/metrics", "/v1/models"), 200
    )


async def test_a_draining_server_lives_and_is_not_ready(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    await drain(gateway.gateway, 1.0)
    assert (await statuses(gateway.client))["/readyz"] == 503
    response = await gateway.client.post("/generate", json={"prompt": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
    assert "retry-after" in response.headers


async def test_a_dead_engine_is_not_ready(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(die_after_tokens=0))
    response = await gateway.client.post("/generate", json={"prompt": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_dead")
    assert (await statuses(gateway.client))["/readyz"] == 503
    assert await metric(gateway, "hotswap_ready") == 0


async def metric(gateway: ScriptedGateway, name: str, **labels: str) -> float | None:
    text = (await gateway.client.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


async def test_metrics_show_what_runs_and_what_waits(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_num_seqs=1)
    gateway.engine.gate.clear()
    width = gateway.gateway.admission.max_running
    body = {"prompt": "hello", "stream": True, "max_tokens": 2}
    calls = [gateway.call("POST", "/generate", json=body) for _ in range(width + 1)]
    await gateway.engine.wait_active(width)
    while gateway.gateway.admission.queued_requests == 0:
        await gateway.client.get("/livez")
    assert await metric(gateway, "hotswap_running_sequences") == width
    assert await metric(gateway, "hotswap_in_flight_requests") == width + 1
    assert await metric(gateway, "hotswap_queued_requests") == 1
    assert await metric(gateway, "hotswap_queued_tokens") == 5
    assert await metric(gateway, "hotswap_ready") == 1
    gateway.engine.gate.set()
    for call in calls:
        await call.head()
        await call.rest()
        await call.task
    assert await metric(gateway, "hotswap_in_flight_requests") == 0


async def test_series_of_an_unloaded_adapter_are_gone(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = (await gateway.load("risk")).partition("@")[2]
    await gateway.client.post("/generate", json={"prompt": "x", "adapter": "risk", "max_tokens": 3})
    assert await metric(gateway, "hotswap_completion_tokens_total", adapter="risk", version=version) == 3
    assert await metric(gateway, "hotswap_adapters", state="live") == 1
    await gateway.client.delete("/admin/adapters/risk")
    assert 'adapter="risk"' not in (await gateway.client.get("/metrics")).text
    assert await metric(gateway, "hotswap_adapters", state="live") == 0
