"""Two gateways on one registry: what one is told, the other becomes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from adapters.errors import AdapterConflictError, RegistryUnavailableError
from adapters.name import AdapterReference
from adapters.registry.registry import Registry
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import LifecycleError, UnknownModelError
from serve.lifecycle.board import AdapterUnavailableError
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import TrafficPlan
from tests.adapters.registry.conftest import empty_postgres
from tests.serve.lifecycle.conftest import Bench, make_bench

MakeBench = Callable[..., Bench]


def short(version: str) -> str:
    return version.partition("@")[2]


async def pair(bench: MakeBench, *, replica: str = "", **options: object) -> tuple[Bench, Bench]:
    """Two gateways; with `replica` the second has a store and a root of its own."""
    one, other = bench(), bench(replica=replica, **options)
    await one.manager.converge()
    await other.manager.converge()
    return one, other


async def test_a_load_here_is_live_there_after_its_probe(bench: MakeBench) -> None:
    one, other = await pair(bench)
    version = await one.load("risk", 0)
    with pytest.raises(UnknownModelError):
        other.speaker()
    await other.manager.converge()
    assert other.speaker() == version
    managed = other.board.behind("risk")
    assert managed is not None
    assert managed.probe is not None
    assert other.held == [version]


async def test_a_verb_here_does_not_hide_what_another_gateway_had_changed_before(bench: MakeBench) -> None:
    one, other = await pair(bench)
    version = await one.load("risk", 0)
    await other.manager.unpin("risk", version, actor="test")  # reads the name, and has nothing to bring up
    with pytest.raises(UnknownModelError):
        other.speaker()
    await other.manager.converge()
    assert other.speaker() == version


async def test_a_replacement_drains_on_every_gateway(bench: MakeBench) -> None:
    one, other = await pair(bench)
    old = await one.load("risk", 0)
    await other.manager.converge()
    with other.board.lease("risk", param="adapter") as lease:
        new = await one.load("risk", 1)
        await other.manager.converge()
        assert (lease.engine_name, other.speaker()) == (old, new)
        assert other.held == sorted([old, new])
    await other.drained()
    assert other.held == [new]


async def test_rollback_pin_traffic_and_unload_are_taken_over(bench: MakeBench) -> None:
    one, other = await pair(bench)
    old = await one.load("risk", 0)
    new = await one.load("risk", 1)
    await other.manager.converge()
    assert other.held == [new]
    await one.manager.pin("risk", old, actor="test")
    await other.manager.converge()
    assert other.speaker(old) == old
    await one.manager.unpin("risk", old, actor="test")
    await one.manager.set_traffic("risk", TrafficPlan(shares={short(old): 0.5}), actor="test")
    await other.manager.converge()
    assert {other.speaker() for _ in range(200)} == {old, new}
    await one.manager.clear_traffic("risk", actor="test")
    await other.manager.converge()
    await other.drained()
    assert other.held == [new]
    await one.manager.rollback("risk", actor="test")
    await other.manager.converge()
    assert other.speaker() == old
    await one.manager.unload("risk", actor="test")
    await other.manager.converge()
    await other.drained()
    assert (other.held, other.board.versions()) == ([], [])
    with pytest.raises(UnknownModelError):
        other.speaker()
    assert other.manager.statuses() == []


async def test_gateways_follow_each_other_by_themselves(bench: MakeBench) -> None:
    one, other = await pair(bench)
    one.manager.follow(0.01)
    other.manager.follow(0.01)
    version = await one.load("risk", 0)

    async def until(bench: Bench, name: str, version: str) -> None:
        while (behind := bench.board.behind(name)) is None or str(behind.version) != version:
            await asyncio.sleep(0.005)

    async with asyncio.timeout(20):
        await until(other, "risk", version)
        newer = await other.load("risk", 1)
        await until(one, "risk", newer)
        tone = await other.load("tone", 2)
        await until(one, "tone", tone)
    assert one.speaker() == other.speaker() == newer


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_gateways_with_connections_of_their_own_are_of_one_mind(tmp_path: Path, database: str) -> None:
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'registry.db'}"
        if database == "postgresql":
            url = stack.enter_context(empty_postgres())
        benches = []
        for replica in ("one", "two"):
            registry = stack.enter_context(Registry(url))
            made = make_bench(tmp_path, registry, replica=replica)
            stack.push_async_callback(made.close)
            await made.manager.converge()
            made.manager.follow(0.01)
            benches.append(made)
        one, other = benches
        shutil.copytree(one.root / one.source("seed-0", seed=0), other.root / "seed-0")
        shutil.copytree(one.root / one.source("seed-1", seed=1), other.root / "seed-1")

        async def agree(speaker: str | None) -> None:
            async with asyncio.timeout(30):
                for made in benches:
                    while (str(behind.version) if (behind := made.board.behind("risk")) else None) != speaker:
                        await asyncio.sleep(0.005)

        old = await one.load("risk", 0)
        await agree(old)
        new = await other.load("risk", 1)
        await agree(new)
        await one.manager.rollback("risk", actor="test")
        await agree(old)
        wins = await asyncio.gather(
            *(made.manager.promote("risk", new, actor="test", expected_live=old) for made in benches),
            return_exceptions=True,
        )
        assert sum(not isinstance(outcome, BaseException) and outcome.moved for outcome in wins) >= 1
        await agree(new)
        await other.manager.unload("risk", actor="test")
        await agree(None)


async def test_what_is_loaded_without_an_alias_is_loaded_there_too(bench: MakeBench) -> None:
    one, other = await pair(bench)
    outcome = await one.manager.load("risk", one.source("a"), actor="test", promote=False)
    version = str(outcome.managed.version)
    await other.manager.converge()
    assert other.speaker(version) == version
    await one.manager.unload_version("risk", version, actor="test")
    await other.manager.converge()
    await other.drained()
    assert other.held == []


async def test_a_replica_fetches_what_its_own_store_lacks_and_proves_that_it_is_the_same(
    bench: MakeBench,
) -> None:
    one, other = await pair(bench, replica="two")
    version = await one.load("risk", 0)
    shutil.copytree(one.root / "seed-0", other.root / "seed-0")
    await other.manager.converge()
    assert other.speaker() == version
    managed = other.board.behind("risk")
    assert managed is not None
    assert managed.handle.path.is_relative_to(other.root.parent)
    assert other.store.verify(managed.version.digest)


@pytest.mark.parametrize("there", ["nothing", "another version", "garbage"])
async def test_a_version_that_a_replica_cannot_get_is_listed_with_its_reason_and_the_old_one_serves(
    bench: MakeBench, there: str
) -> None:
    one, other = await pair(bench, replica="two")
    old = await one.load("risk", 0)
    shutil.copytree(one.root / "seed-0", other.root / "seed-0")
    await other.manager.converge()
    new = await one.load("risk", 1)
    if there == "another version":
        shutil.copytree(one.root / "seed-0", other.root / "seed-1")
    elif there == "garbage":
        (other.root / "seed-1").mkdir()
    await other.manager.converge()
    assert other.speaker() == old
    status = other.manager.status("risk")
    assert status is not None
    assert (str(status.desired), str(status.live), status.settled) == (new, old, False)
    assert status.reason is not None
    assert f"{new}: its files are not in this server's store" in status.reason
    assert str(other.root.parent) not in status.reason
    shutil.rmtree(other.root / "seed-1", ignore_errors=True)
    shutil.copytree(one.root / "seed-1", other.root / "seed-1")
    await other.manager.converge()  # tried again
    assert other.speaker() == new
    assert other.manager.statuses()[0].settled


async def test_a_version_that_fails_is_tried_again_later_by_itself(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.lifecycle.reconcile.FIRST_RETRY_SECONDS", 0.01)
    before = bench()
    version = await before.load("risk", 0)
    await before.close()
    after = bench(engine=ScriptedEngine(Script(load_error="out of slots")))
    await after.manager.converge()
    with pytest.raises(AdapterUnavailableError, match="out of slots"):
        after.speaker()
    after.manager.follow(0.01)
    after.engine.script.load_error = None
    async with asyncio.timeout(20):
        while (behind := after.board.behind("risk")) is None or behind.state is not AdapterState.LIVE:
            await asyncio.sleep(0.005)
    assert after.speaker() == version


async def test_files_that_are_missing_beyond_the_memory_do_not_hold_up_the_start(bench: MakeBench) -> None:
    before = bench()
    first, second = await before.load("risk", 0), await before.load("tone", 1)
    digest = before.registry.get(AdapterReference("tone")).version.digest
    await before.close()
    before.store.remove(digest)
    after = bench(max_resident=1)
    await after.manager.converge()
    assert after.speaker() == first
    with pytest.raises(AdapterUnavailableError, match="not in this server's store"):
        after.speaker("tone")
    assert after.store.list() != [digest]
    after.manager.follow(0.01)
    async with asyncio.timeout(30):
        while (behind := after.board.behind("tone")) is None or behind.state is not AdapterState.LIVE:
            await asyncio.sleep(0.005)
    assert after.speaker("tone") == second
    assert after.store.verify(digest)


async def test_a_bug_on_the_way_does_not_end_the_following(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await pair(bench)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stumble() -> int:
        loop.call_soon_threadsafe(asked.set)
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(other.registry, "revision", stumble)
        other.manager.follow(0.005)
        await asyncio.wait_for(asked.wait(), 20)
    version = await one.load("risk", 0)
    async with asyncio.timeout(20):
        while other.board.behind("risk") is None:
            await asyncio.sleep(0.005)
    assert other.speaker() == version


async def test_a_gateway_that_was_told_something_else_meanwhile_says_so(bench: MakeBench) -> None:
    """The alias is moved by compare-and-set, on what the registry says when the verb begins."""
    one, other = await pair(bench)
    old = await one.load("risk", 0)
    new = await other.load("risk", 1)  # has not converged, and knows nothing of the first
    assert other.board.behind("risk") is not None
    assert (
        one.registry.name("risk").previous
        == one.registry.get(AdapterReference("risk", short(old))).version.digest
    )
    await one.manager.converge()
    assert one.speaker() == new


async def test_a_name_that_a_verb_works_on_is_left_alone_until_it_is_done(bench: MakeBench) -> None:
    one, other = await pair(bench)
    other.engine.gate.clear()  # its probe waits
    loading = asyncio.create_task(other.load("risk", 1))
    while not any(managed.state is AdapterState.PROBING for managed in other.board.versions()):
        await asyncio.sleep(0)
    await one.load("tone", 0)
    await one.load("risk", 0)
    converging = asyncio.create_task(other.manager.converge())
    while len(other.board.versions()) < 2:  # it is busy with tone, and has passed by risk
        await asyncio.sleep(0)
    other.engine.gate.set()
    await converging
    with pytest.raises(AdapterConflictError, match="changed by somebody else"):
        await loading
    await other.manager.converge()
    assert other.speaker() == one.speaker()


async def test_files_go_from_every_store_when_a_name_is_unloaded(bench: MakeBench) -> None:
    one, other = await pair(bench, replica="two")
    await one.load("risk", 0)
    shutil.copytree(one.root / "seed-0", other.root / "seed-0")
    await other.manager.converge()
    assert len(other.store.list()) == 1
    await one.manager.unload("risk", actor="test")
    await other.manager.converge()
    await other.drained()
    await other.manager.close()
    assert one.store.list() == other.store.list() == []


async def test_a_registry_that_does_not_answer_changes_nothing_here(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await pair(bench)
    version = await one.load("risk", 0)
    await other.manager.converge()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail() -> int:
        loop.call_soon_threadsafe(asked.set)
        raise RegistryUnavailableError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(other.registry, "revision", fail)
        other.manager.follow(0.005)
        await asyncio.wait_for(asked.wait(), 20)
        assert other.speaker() == version
    newer = await one.load("risk", 1)
    async with asyncio.timeout(20):
        while other.speaker() != newer:
            await asyncio.sleep(0.005)


async def test_a_plan_that_cannot_be_read_counts_as_none(bench: MakeBench) -> None:
    one, other = await pair(bench)
    version = await one.load("risk", 0)
    one.registry.set_plan("risk", '{"weights": "of a newer server"}')
    await other.manager.converge()
    assert {other.speaker() for _ in range(20)} == {version}
    with pytest.raises(LifecycleError):
        other.engine.script.load_error = "out of slots"
        await other.load("risk", 1)
