"""A running gateway with one adapter, for client libraries as their users install them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from serve.engine.scripted import Script
from tests.serve.conftest import RunningServer

T = TypeVar("T")


@dataclass
class Served:
    """A server behind a real socket; `risk` is live."""

    server: RunningServer
    version: str

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.server.url

    @property
    def script(self) -> Script:
        """How the engine behaves."""
        return self.server.engine.script

    async def fill(self) -> None:
        """Take every place in the engine, so that the next request is refused."""
        self.server.engine.gate.clear()
        places = self.server.gateway.admission.max_running
        body = {"prompt": "x", "max_tokens": 2}
        for _ in range(places):
            self.held.append(asyncio.create_task(self.server.client.post("/generate", json=body)))
        await self.server.engine.wait_active(places)

    def __post_init__(self) -> None:
        self.held: list[asyncio.Task[Any]] = []


@pytest.fixture
async def served(
    running_server: Callable[..., Awaitable[RunningServer]],
) -> AsyncIterator[Served]:
    """One place to run in and none to wait in."""
    server = await running_server(max_num_seqs=1, max_queued_requests=0)
    source = server.make_adapter("risk")
    loaded = await server.client.post("/admin/adapters", json={"name": "risk", "source": source})
    assert loaded.status_code == 201, loaded.text
    served = Served(server, loaded.json()["adapter"]["live"])
    yield served
    server.engine.gate.set()
    await asyncio.gather(*served.held)


async def blocking(call: Callable[..., T], *args: Any, **given: Any) -> T:
    """A blocking client's call, beside the server's loop."""
    return await asyncio.to_thread(call, *args, **given)
