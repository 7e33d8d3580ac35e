"""A fresh engine gets back what the last one had: same versions, same ids, proven again; holders notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.name import AdapterReference
from serve.engine.protocol import AdapterHandle
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import (
    EngineDeadError,
    EngineNotReadyError,
    RequestAbortedError,
    UnknownModelError,
)
from serve.lifecycle.board import AdapterUnavailableError
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import TrafficPlan
from tests.serve.lifecycle.conftest import Bench

MakeBench = Callable[..., Bench]


class Succession:
    """Stands for one engine after another, as the supervisor's does."""

    def __init__(self) -> None:
        self.now = ScriptedEngine()

    def succeed(self, engine: ScriptedEngine | None = None) -> ScriptedEngine:
        self.now = engine or ScriptedEngine()
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


class DyingEngine(ScriptedEngine):
    """Dies at the load of the second adapter."""

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        if self.adapters:
            raise EngineDeadError("the engine process is gone")
        await super().load_adapter(adapter)


def start(bench: MakeBench, **options: Any) -> tuple[Bench, Succession]:
    engines = Succession()
    made = bench(engine=engines, **options)
    return made, engines


async def test_everything_that_was_loaded_comes_back_the_same(bench: MakeBench) -> None:
    made, engines = start(bench)
    old = await made.load("risk", 0)
    await made.manager.pin("risk", old, actor="test")
    live = await made.load("risk", 1)
    canary = await made.manager.load("risk", made.source("seed-2", seed=2), actor="test", promote=False)
    await made.manager.set_traffic(
        "risk", TrafficPlan(shares={canary.managed.version.digest: 0.5}), actor="test"
    )
    tone = await made.load("tone", 3)
    before = dict(engines.now.adapters)
    managed = {str(m.version): m for m in made.board.versions()}
    fresh = engines.succeed()
    await made.manager.restore(fresh)
    assert fresh.adapters == before, "the same names, ids and folders"
    assert {str(m.version): m for m in made.board.versions()} == managed, "whoever holds one holds it still"
    assert {made.speaker() for _ in range(100)} == {live, str(canary.managed.version)}
    assert (made.speaker(old), made.speaker("tone")) == (old, tone)
    for version in managed.values():
        assert {"verify", "load", "probe"} <= version.phase_seconds.keys()
        assert any(handle == version.handle for handle in fresh.scored), "asked on the new engine"
    assert None in fresh.scored, "what the last engine's base said is not believed of this one"


async def test_a_request_that_began_before_is_counted_on(bench: MakeBench) -> None:
    made, engines = start(bench)
    version = await made.load("risk", 0)
    with made.board.lease("risk", param="adapter") as lease:
        await made.manager.restore(engines.succeed())
        lease.check_usable()
        assert lease.handle is not None
        assert engines.now.adapters[lease.handle.engine_id] == lease.handle
        assert lease.managed is not None
        assert lease.managed.in_flight == 1
        newer = await made.load("risk", 1)
        assert made.held == sorted([version, newer])
    await made.drained()
    assert made.held == [newer]


async def test_a_version_that_drains_comes_back_for_those_who_use_it(bench: MakeBench) -> None:
    made, engines = start(bench)
    old = await made.load("risk", 0)
    with made.board.lease("risk", param="adapter"):
        new = await made.load("risk", 1)
        await made.manager.restore(engines.succeed())
        assert made.held == sorted([old, new])
        assert made.speaker() == new
    await made.drained()
    assert made.held == [new]


async def test_a_version_that_drained_into_a_dead_engine_is_gone(bench: MakeBench) -> None:
    made, engines = start(bench)
    await made.load("risk", 0)
    with made.board.lease("risk", param="adapter"):
        new = await made.load("risk", 1)

        async def unload(adapter: AdapterHandle) -> None:
            raise EngineDeadError(f"nothing holds {adapter.name} any more")

        engines.now.unload_adapter = unload  # type: ignore[method-assign]
    await made.drained()
    await made.manager.restore(engines.succeed())
    assert made.held == [new]
    assert [managed.state for managed in made.board.versions()] == [AdapterState.LIVE]


@pytest.mark.parametrize("fault", ["files gone", "bytes changed", "probe"])
async def test_a_version_that_does_not_come_back_is_failed_and_the_others_serve(
    bench: MakeBench, fault: str
) -> None:
    made, engines = start(bench)
    await made.load("risk", 0)
    tone = await made.load("tone", 1)
    digest = made.registry.get(AdapterReference("risk")).version.digest
    (made.root / "seed-0").rename(made.root / "elsewhere")
    fresh = ScriptedEngine()
    genuine = fresh.load_adapter
    if fault == "files gone":
        made.lose(digest)
    elif fault == "bytes changed":
        weights = made.store.path(digest) / WEIGHTS_NAME
        weights.chmod(0o644)
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1
        weights.write_bytes(raw)
    else:

        async def load(adapter: AdapterHandle) -> None:
            fresh.script.no_effect = adapter.name.startswith("risk@")
            await genuine(adapter)

        fresh.load_adapter = load  # type: ignore[method-assign]
    using = asyncio.create_task(hold(made))
    await asyncio.sleep(0)
    await made.manager.restore(engines.succeed(fresh))
    with pytest.raises(RequestAbortedError, match="did not come back with a new engine"):
        await using
    assert made.speaker("tone") == tone
    with pytest.raises(AdapterUnavailableError):
        made.speaker()
    await made.drained()
    assert made.held == [tone]
    (made.root / "elsewhere").rename(made.root / "seed-0")
    if fault == "probe":
        fresh.load_adapter = genuine  # type: ignore[method-assign]
        fresh.script.no_effect = False
    await made.manager.converge()  # tried again
    assert made.speaker().startswith("risk@")


async def hold(made: Bench) -> None:
    with made.running.track("req") as running, made.board.lease("risk", param="adapter") as lease:
        running.version = lease.engine_name
        await asyncio.Event().wait()


async def test_while_they_come_back_nobody_is_answered_and_nobody_is_told_that_there_is_none(
    bench: MakeBench,
) -> None:
    made, engines = start(bench)
    version = await made.load("risk", 0)
    fresh = engines.succeed()
    fresh.gate.clear()
    restoring = asyncio.create_task(made.manager.restore(fresh))
    while not any(managed.state is AdapterState.PROBING for managed in made.board.versions()):
        await asyncio.sleep(0)
    for name in ("risk", version):
        with pytest.raises(AdapterUnavailableError, match="is being loaded"):
            made.speaker(name)
    with pytest.raises(UnknownModelError):
        made.speaker("tone")
    loading = asyncio.create_task(made.load("risk", 1))
    unloading = asyncio.create_task(made.manager.unload("risk", actor="test"))
    await asyncio.sleep(0)
    assert not loading.done(), "verbs wait"
    fresh.gate.set()
    await restoring
    newer = await loading
    assert [str(gone) for gone in await unloading] == [version, newer]
    assert made.held == []


async def test_a_load_into_an_engine_that_is_gone_fails_and_can_be_repeated(bench: MakeBench) -> None:
    made, engines = start(bench)
    old = await made.load("risk", 0)
    dying = engines.now
    dying.gate.clear()
    loading = asyncio.create_task(made.load("risk", 1))
    while not any(managed.state is AdapterState.PROBING for managed in made.board.versions()):
        await asyncio.sleep(0)
    await made.manager.restore(engines.succeed())
    dying.gate.set()
    with pytest.raises(EngineNotReadyError, match="started again while"):
        await loading
    assert made.speaker() == old
    assert made.held == [old]
    new = await made.load("risk", 1)
    assert made.speaker() == new


async def test_an_engine_that_dies_while_it_gets_them_leaves_them_to_the_next(bench: MakeBench) -> None:
    made, engines = start(bench)
    versions = sorted([await made.load("risk", 0), await made.load("tone", 1)])
    with pytest.raises(EngineDeadError):
        await made.manager.restore(engines.succeed(DyingEngine()))
    with pytest.raises(AdapterUnavailableError):
        made.speaker("tone")
    waiting = asyncio.create_task(made.load("risk", 2))
    await made.manager.restore(engines.succeed())
    assert made.speaker("tone") in versions
    newer = await waiting
    assert made.speaker() == newer


async def test_beyond_the_memory_they_answer_unread_and_are_proven_when_they_are_used(
    bench: MakeBench,
) -> None:
    made, engines = start(bench, max_resident=1)
    await made.load("tone", 1)
    risk = await made.load("risk", 0)
    made.speaker("risk")  # the one that was used comes first
    await made.manager.restore(engines.succeed())
    assert made.held == [risk]
    with made.board.lease("tone", param="adapter") as lease:
        await lease.wait_proven()
        assert lease.managed is not None
        assert lease.managed.proven
    assert len(made.held) == 2


async def test_a_version_that_nobody_had_read_is_refused_at_its_first_use_when_it_is_damaged(
    bench: MakeBench,
) -> None:
    before = bench()
    await before.load("risk", 0)
    await before.load("tone", 1)
    digest = before.registry.get(AdapterReference("tone")).version.digest
    await before.close()
    weights = before.store.path(digest) / WEIGHTS_NAME
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    (before.root / "seed-1").rename(before.root / "gone")
    after = bench(max_resident=1)
    await after.manager.converge()
    with after.board.lease("tone", param="adapter") as lease:
        with pytest.raises(AdapterUnavailableError, match="damaged"):
            await lease.wait_proven()
        with pytest.raises(AdapterUnavailableError):
            lease.check_usable()
    with pytest.raises(AdapterUnavailableError):
        after.speaker("tone")
    assert len(after.held) == 1


async def test_what_drained_while_it_was_proven_does_not_stay_in_the_engine(bench: MakeBench) -> None:
    before = bench()
    await before.load("risk", 0)
    await before.close()
    after = bench(max_resident=0)
    await after.manager.converge()
    after.engine.gate.clear()  # its probe waits
    with after.board.lease("risk", param="adapter") as lease:
        managed = lease.managed
    assert managed is not None
    assert managed.proof is not None
    while not after.held:
        await asyncio.sleep(0)
    await after.manager.unload("risk", actor="test")
    after.engine.gate.set()
    await asyncio.wait({managed.proof})
    assert after.held == []
    assert after.board.versions() == []


async def test_a_proof_that_an_engine_took_with_it_is_begun_again(bench: MakeBench) -> None:
    before = bench()
    version = await before.load("risk", 0)
    await before.close()
    after = bench(max_resident=0)
    await after.manager.converge()
    genuine = after.engine.load_adapter

    async def die(adapter: AdapterHandle) -> None:
        raise EngineDeadError(f"gone while it loaded {adapter.name}")

    after.engine.load_adapter = die  # type: ignore[method-assign]
    with after.board.lease("risk", param="adapter") as lease, pytest.raises(AdapterUnavailableError):
        await lease.wait_proven()
    after.engine.load_adapter = genuine  # type: ignore[method-assign]
    with after.board.lease("risk", param="adapter") as lease:
        await lease.wait_proven()
        assert (lease.engine_name, lease.managed.proven if lease.managed else None) == (version, True)
    assert after.held == [version]


async def test_without_a_probe_they_come_back_as_well(bench: MakeBench) -> None:
    made, engines = start(bench, probe=False)
    version = await made.load("risk", 0)
    await made.manager.restore(engines.succeed(ScriptedEngine(Script(no_effect=True))))
    assert made.speaker() == version
    assert made.held == [version]


class SlowEngine(ScriptedEngine):
    """Stops inside its first load until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.loading, self.go_on = asyncio.Event(), asyncio.Event()

    async def load_adapter(self, adapter: AdapterHandle) -> None:
        self.loading.set()
        await self.go_on.wait()
        await super().load_adapter(adapter)


async def test_a_name_that_finished_draining_while_others_came_back_does_not_end_the_restoration(
    bench: MakeBench,
) -> None:
    made, engines = start(bench)
    live = await made.load("risk", 0)
    await made.load("tone", 1)
    with made.board.lease("risk", param="adapter"), made.board.lease("risk", param="adapter"):  # comes first
        with made.board.lease("tone", param="adapter"):
            unloading = asyncio.create_task(made.manager.unload("tone", actor="test", drain_seconds=60))
            while made.board.behind("tone") is not None:
                await asyncio.sleep(0)
            fresh = SlowEngine()
            engines.succeed(fresh)
            restoring = asyncio.create_task(made.manager.restore(fresh))
            await fresh.loading.wait()
        await unloading  # its files are gone
        fresh.go_on.set()
        await restoring
    assert made.held == [live]
    assert made.board.versions("tone") == []
