"""Requests and an engine that go on when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from serve.engine.protocol import AdapterHandle
from serve.engine.scripted import ScriptedEngine
from tests.serve.lifecycle.conftest import Bench

MakeBench = Callable[..., Bench]


class SlowEngine(ScriptedEngine):
    """Stops inside load and unload until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.loading, self.unloading = asyncio.Event(), asyncio.Event()
        self.may_load, self.may_unload = asyncio.Event(), asyncio.Event()
        self.may_load.set()
        self.may_unload.set()

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        self.loading.set()
        await self.may_load.wait()
        await super().load_adapter(adapter)

    async def unload_adapter(self, adapter: AdapterHandle) -> None:
        await super().unload_adapter(adapter)  # told and done, whether or not anybody waits for the answer
        self.unloading.set()
        await self.may_unload.wait()


def speaker(bench: Bench, name: str = "risk") -> str:
    with bench.board.lease(name, param="adapter") as lease:
        return lease.engine_name


def held(bench: Bench) -> list[str]:
    return sorted(handle.name for handle in bench.engine.adapters.values())


async def answer(bench: Bench, name: str, started: asyncio.Event, finish: asyncio.Event) -> str:
    """A request on `name` that ends when the test says so."""
    with bench.running.track("req") as running, bench.board.lease(name, param="adapter") as lease:
        running.version = lease.engine_name
        started.set()
        await finish.wait()
        return lease.engine_name


class Request:
    """A request that is being answered."""

    def __init__(self, bench: Bench, name: str = "risk") -> None:
        self.started, self.finish = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(answer(bench, name, self.started, self.finish))

    async def end(self) -> str:
        self.finish.set()
        return await self.task


async def request(bench: Bench, name: str = "risk") -> Request:
    made = Request(bench, name)
    await made.started.wait()
    return made
