"""The application factory: nothing at import, nothing shared, one document."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
from fastapi import FastAPI

from serve.app import HttpLimits, create_app
from tests.serve.conftest import ScriptedGateway

LIMITS = HttpLimits(max_body_bytes=100, receive_seconds=1.0, allowed_hosts=("127.0.0.1",))


def test_importing_the_gateway_imports_no_heavy_library() -> None:
    """`hotswap --help` and the tests of this room stay quick."""
    code = (
        "import sys, hotswap, serve.server, serve.build; "
        "print([name for name in ('torch', 'transformers', 'vllm', 'peft', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


async def test_two_applications_share_nothing() -> None:
    entered: list[FastAPI] = []

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        entered.append(app)
        yield

    one, other = create_app(life, LIMITS), create_app(life, LIMITS)
    assert one.state is not other.state
    async with one.router.lifespan_context(one):
        assert entered == [one]


async def test_limits_of_the_settings_reach_the_wire(
    scripted_gateway: Callable[..., Awaitable[ScriptedGateway]],
) -> None:
    gateway = await scripted_gateway(max_body_kib=1)
    response = await gateway.client.post("/generate", json={"prompt": "x" * 1100})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
    response = await gateway.client.get("/livez", headers={"host": "evil.example"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "host_refused")
    assert response.headers["x-request-id"].startswith("req-")


async def test_bound_to_the_world_any_name_is_answered_unless_named(
    scripted_gateway: Callable[..., Awaitable[ScriptedGateway]],
) -> None:
    open_one = await scripted_gateway(host="0.0.0.0")
    assert (await open_one.client.get("/livez", headers={"host": "api.example"})).status_code == 200
    named = await scripted_gateway(host="0.0.0.0", allowed_hosts=("api.example",))
    assert (await named.client.get("/livez", headers={"host": "api.example"})).status_code == 200
    assert (await named.client.get("/livez")).status_code == 400


async def test_every_route_is_documented_with_its_errors(
    scripted_gateway: Callable[..., Awaitable[ScriptedGateway]],
) -> None:
    gateway = await scripted_gateway()
    document = (await gateway.client.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        "/generate",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/lorax",
        "/lorax/models/{adapter}",
        "/lorax/generate",
        "/lorax/generate_stream",
        "/lorax/health",
        "/lorax/info",
        "/admin/adapters",
        "/admin/adapters/validate",
        "/admin/adapters/{name}",
        "/admin/adapters/{name}/promote",
        "/admin/adapters/{name}/rollback",
        "/admin/adapters/{name}/traffic",
        "/admin/adapters/{name}/versions/{version}",
        "/admin/adapters/{name}/versions/{version}/pin",
        "/admin/adapters/{name}/versions/{version}/prefetch",
        "/admin/operations",
        "/admin/operations/{operation_id}",
        "/admin/events",
        "/admin/audit",
        "/admin/keys",
        "/admin/keys/{key_id}",
        "/livez",
        "/readyz",
        "/metrics",
    }
    for path in ("/generate", "/v1/chat/completions"):
        responses = document["paths"][path]["post"]["responses"]
        assert {"200", "400", "401", "404", "413", "422", "429", "503", "504"} <= set(responses)
        assert "text/event-stream" in responses["200"]["content"]


async def test_the_documentation_page_is_there(
    scripted_gateway: Callable[..., Awaitable[ScriptedGateway]],
) -> None:
    gateway = await scripted_gateway()
    response: httpx.Response = await gateway.client.get("/docs")
    assert response.status_code == 200
