"""Versions on their way out, with requests that still run and engines that do not let go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.name import AdapterReference, AdapterVersion
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import (
    AdapterMissingError,
    LifecycleError,
    RequestAbortedError,
    UnknownModelError,
    UnloadFailedError,
)
from serve.lifecycle.state import AdapterState
from tests.serve.lifecycle.held_requests import MakeBench, SlowEngine, held, request, speaker


async def test_unload_waits_for_a_running_request(bench: MakeBench) -> None:
    made = bench()
    version = await made.load("risk")
    running = await request(made)
    unloading = asyncio.create_task(made.manager.unload("risk", actor="test"))
    while made.board.behind("risk") is not None:
        await asyncio.sleep(0)
    with pytest.raises(UnknownModelError):
        speaker(made)
    with pytest.raises(UnknownModelError):
        speaker(made, version)
    assert held(made) == [version]
    assert not unloading.done()
    assert await running.end() == version
    assert [str(gone) for gone in await unloading] == [version]
    assert held(made) == []
    assert made.board.versions() == []
    assert made.registry.list_versions() == []
    assert made.store.list() == []


async def test_unload_ends_what_runs_at_the_drain_limit_with_a_reason(bench: MakeBench) -> None:
    made = bench(drain_seconds=0.01)
    version = await made.load("risk")
    other = await made.load("tone", 1)
    running, untouched = await request(made), await request(made, "tone")
    await made.manager.unload("risk", actor="test")
    with pytest.raises(RequestAbortedError, match=f"{version} was unloaded.*0.01 s"):
        await running.task
    assert held(made) == [other]
    assert await untouched.end() == other


async def test_unload_says_so_when_a_request_does_not_let_go(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.lifecycle.retirement._ABORT_SECONDS", 0.01)
    made = bench()
    version = await made.load("risk")
    with made.board.lease("risk", param="adapter"):  # a lease that no task can be cancelled for
        with pytest.raises(LifecycleError, match="still in use"):
            await made.manager.unload("risk", actor="test", drain_seconds=0)
        assert held(made) == [version]
    while made.engine.adapters:
        await asyncio.sleep(0)


async def test_unload_is_an_error_while_the_engine_still_holds_the_adapter(bench: MakeBench) -> None:
    made = bench(engine=ScriptedEngine(Script(keeps_unloaded=True)))
    version = await made.load("risk")
    with pytest.raises(UnloadFailedError, match=version):
        await made.manager.unload("risk", actor="test")
    (left,) = made.board.versions()
    assert (left.state, left.reason) == (AdapterState.FAILED, f"the engine still holds {version}")
    assert made.registry.list_aliases() == []
    made.engine.script.keeps_unloaded = False
    await made.manager.unload("risk", actor="test")
    assert held(made) == []
    assert made.board.versions() == []
    assert made.store.list() == []


async def test_an_old_version_that_stays_in_the_engine_is_listed_as_failed(bench: MakeBench) -> None:
    made = bench(engine=ScriptedEngine(Script(keeps_unloaded=True)))
    old = await made.load("risk", 0)
    new = await made.load("risk", 1)
    while not any(managed.state is AdapterState.FAILED for managed in made.board.versions()):
        await asyncio.sleep(0)
    assert speaker(made) == new
    assert held(made) == sorted([old, new])


async def test_a_draining_version_that_is_wanted_again_goes_straight_back(bench: MakeBench) -> None:
    made = bench()
    first = await made.load("risk", 0)
    running = await request(made)
    await made.load("risk", 1)
    assert await made.load("risk", 0) == first
    assert await running.end() == first
    assert speaker(made) == first
    while len(made.engine.adapters) > 1:
        await asyncio.sleep(0)
    assert held(made) == [first]


async def test_a_version_wanted_again_while_the_engine_forgets_it_is_loaded_anew(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(engine=SlowEngine())
    engine = made.engine
    assert isinstance(engine, SlowEngine)
    first = await made.load("risk", 0)
    engine.may_unload.clear()
    await made.load("risk", 1)
    await engine.unloading.wait()
    wanted, genuine = asyncio.Event(), made.board.get

    def get(version: AdapterVersion) -> Any:
        wanted.set()
        return genuine(version)

    monkeypatch.setattr(made.board, "get", get)
    again = asyncio.create_task(made.load("risk", 0))
    await wanted.wait()  # the load has come as far as looking for the version
    engine.may_unload.set()
    assert await again == first
    while len(made.engine.adapters) > 1:
        await asyncio.sleep(0)
    assert held(made) == [first]
    assert speaker(made) == first


async def test_unloading_what_is_not_there_is_an_error(bench: MakeBench) -> None:
    made = bench()
    with pytest.raises(AdapterMissingError, match="'risk'"):
        await made.manager.unload("risk", actor="test")


async def test_a_name_of_which_only_failures_are_left_can_be_unloaded(bench: MakeBench) -> None:
    made = bench(engine=ScriptedEngine(Script(load_error="out of slots")))
    with pytest.raises(LifecycleError):
        await made.load("risk")
    await made.manager.unload("risk", actor="test")
    assert made.board.versions() == []
    assert made.store.list() == []
    assert made.metrics.registry.get_sample_value("hotswap_adapters", {"state": "failed"}) == 0


async def test_content_that_another_name_serves_stays_in_the_store(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk", 0)
    other = await made.load("tone", 0)
    await made.manager.unload("risk", actor="test")
    assert made.store.list() == [made.registry.get(AdapterReference("tone")).version.digest]
    assert speaker(made, "tone") == other
