"""Gateways that share a store: files stay while one of them may need them, and the last one removes them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.errors import AdapterStoreError
from adapters.name import AdapterReference
from adapters.registry.registry import Registry
from adapters.store.store import AdapterStore
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import LifecycleError
from serve.lifecycle.board import AdapterUnavailableError
from serve.lifecycle.state import AdapterState
from serve.observability.events import STATE_ACTION
from tests.patience import patient
from tests.serve.conftest import ServerProcess
from tests.serve.lifecycle.conftest import Bench

MakeBench = Callable[..., Bench]


async def pair(bench: MakeBench, **options: object) -> tuple[Bench, Bench]:
    one, other = bench(), bench(**options)
    await one.manager.converge()
    await other.manager.converge()
    return one, other


def live_digest(bench: Bench) -> str:
    return bench.registry.get(AdapterReference("risk")).version.digest


async def emptied(bench: Bench) -> None:
    """Return when the store is empty."""
    async with asyncio.timeout(patient(20)):
        while bench.store.list():
            await asyncio.sleep(0.005)


async def test_files_stay_while_another_gateway_answers_with_them_and_go_with_its_last_answer(
    bench: MakeBench,
) -> None:
    one, other = await pair(bench)
    await one.load("risk", 0)
    await other.manager.converge()
    digest = live_digest(one)
    with other.board.lease("risk", param="adapter") as lease:
        assert lease.handle is not None
        await one.manager.unload("risk", actor="test")
        assert one.store.verify(digest)  # it has not heard of that yet, and answers whoever asks
        await other.manager.converge()
        assert one.store.verify(lease.handle.path.name)  # it drains
    await emptied(other)


async def test_files_that_another_gateway_only_lists_unread_stay_until_it_has_followed(
    bench: MakeBench,
) -> None:
    one = bench()
    await one.manager.converge()
    version = await one.load("risk", 0)
    other = bench(max_resident=0)
    await other.manager.converge()
    assert other.held == []
    await one.manager.unload("risk", actor="test")
    with other.board.lease("risk", param="adapter") as lease:
        await lease.wait_proven()
        assert other.held == [version]
    await other.manager.converge()
    await emptied(other)


async def test_a_gateway_that_could_not_remove_files_does_so_when_their_holder_was_killed(
    bench: MakeBench,
) -> None:
    one, other = await pair(bench)
    await one.load("risk", 0)
    await other.manager.converge()
    await one.manager.unload("risk", actor="test")
    await one.manager.converge()
    assert len(one.store.list()) == 1
    other.store.close()  # as the kernel does for a process that was killed
    await one.manager.converge()
    assert one.store.list() == []


async def test_a_start_removes_what_gateways_left_that_were_killed(bench: MakeBench) -> None:
    one, other = await pair(bench)
    await one.load("risk", 0)
    kept = await one.load("tone", 1)
    await other.manager.converge()
    await one.manager.unload("risk", actor="test")
    for killed in (one, other):
        killed.store.close()
    assert len(one.store.list()) == 2
    after = bench()
    await after.manager.converge()
    assert after.store.list() == [after.registry.get(AdapterReference("tone")).version.digest]
    assert after.speaker("tone") == kept


async def test_a_start_leaves_what_its_registry_has_never_heard_of(bench: MakeBench) -> None:
    """Of a home whose registry is elsewhere this time, nothing is lost."""
    made = bench()
    folder = made.root / made.source("of-another-registry", seed=7)
    report = await made.manager.validate_folder(folder, actor="test")  # and looks no different for that
    digest = str(report.facts.digest)
    with closing(AdapterStore(folder.parent.parent / "store")) as store:
        store.publish(folder, digest)
        await bench().manager.converge()
        assert store.list() == [digest]


async def test_a_load_that_fails_takes_nothing_from_a_gateway_that_loads_the_same(bench: MakeBench) -> None:
    one, other = await pair(bench, engine=ScriptedEngine(Script(load_error="out of slots")))
    one.engine.gate.clear()  # its probe waits
    loading = asyncio.create_task(one.load("risk", 0))
    while not one.held:
        await asyncio.sleep(0)
    with pytest.raises(LifecycleError):
        await other.load("tone", 0)
    one.engine.gate.set()
    version = await loading
    assert one.store.verify(live_digest(one))
    assert one.speaker() == version
    await one.manager.unload("risk", actor="test")
    assert one.store.list() == []


async def test_what_failed_holds_nothing(bench: MakeBench) -> None:
    one, other = await pair(bench, engine=ScriptedEngine(Script(load_error="out of slots")))
    await one.load("risk", 0)
    await other.manager.converge()
    with pytest.raises(AdapterUnavailableError):
        other.speaker()
    await one.manager.unload("risk", actor="test")
    assert one.store.list() == []


async def test_a_store_that_gives_no_hold_fails_the_load_and_what_is_unread_is_tried_again(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()
    version = await made.load("risk", 0)

    def refuse(_: str) -> None:
        raise AdapterStoreError("it is being removed")

    after = bench(max_resident=0)
    with monkeypatch.context() as broken:
        for store in (made.store, after.store):
            broken.setattr(store, "hold", refuse)
        with pytest.raises(AdapterStoreError):
            await made.load("risk", 1)
        await after.manager.converge()
        with pytest.raises(AdapterUnavailableError, match="it is being removed"):
            after.speaker()
    assert made.speaker() == version
    await after.manager.converge()
    assert after.speaker() == version


async def test_a_hold_that_nobody_waits_for_any_more_ends(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()
    genuine, loop = made.store.hold, asyncio.get_running_loop()
    asked, granted = asyncio.Event(), asyncio.Event()

    def hold(digest: str) -> Any:
        loop.call_soon_threadsafe(asked.set)
        asyncio.run_coroutine_threadsafe(granted.wait(), loop).result()
        return genuine(digest)

    source = made.source("seed-0", seed=0)
    with monkeypatch.context() as slow:
        slow.setattr(made.store, "hold", hold)
        loading = asyncio.create_task(made.manager.load("risk", source, actor="test"))
        await asked.wait()
        loading.cancel()
        await asyncio.wait({loading})
        granted.set()
    await made.load("risk", 0)
    await made.manager.unload("risk", actor="test")
    await made.manager.converge()
    assert made.store.list() == []


class Home:
    """Gateways in processes of their own on one home with a registry in SQLite."""

    def __init__(self, start: Callable[..., ServerProcess]) -> None:
        self._start = start

    def gateway(self) -> ServerProcess:
        return self._start("--registry-poll-seconds", "0.05")

    def load(self, at: ServerProcess) -> str:
        source = at.make_adapter("seed-0", seed=0)
        body = {"name": "risk", "source": source}
        answer = httpx.post(f"{at.url}/admin/adapters", json=body, timeout=patient(20))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["adapter"]["live"])

    def follow(self, at: ServerProcess, version: str) -> None:
        """Return when that gateway answers with a version, as the first one does, and has written that down.

        Stopped before, it could keep the registry locked.
        """
        until(lambda: self.speaker(at) == version)
        with Registry(f"sqlite:///{at.home / 'registry.db'}") as registry:
            until(lambda: self._times_live(registry) == 2)

    def _times_live(self, registry: Registry) -> int:
        steps = registry.list_events(name="risk", action=STATE_ACTION)
        return [step.event.outcome for step in steps].count(AdapterState.LIVE)

    def unload(self, at: ServerProcess) -> None:
        answer = httpx.request(
            "DELETE",
            f"{at.url}/admin/adapters/risk",
            headers={"Content-Type": "application/json"},
            timeout=patient(20),
        )
        assert answer.status_code == 200, answer.text

    def speaker(self, at: ServerProcess) -> str | None:
        """Who answers to the name; None: nobody."""
        body = {"prompt": "a", "adapter": "risk", "max_tokens": 1}
        answer = httpx.post(f"{at.url}/generate", json=body, timeout=patient(20))
        return str(answer.json()["adapter"]) if answer.status_code == 200 else None

    def files(self, at: ServerProcess) -> list[Path]:
        return [entry for entry in (at.home / "store").iterdir() if len(entry.name) == 64]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patient(20)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def home(server_process: Callable[..., ServerProcess]) -> Home:
    return Home(server_process)


def test_the_second_gateway_of_a_home_follows_the_first_and_files_go_with_the_holder_that_was_killed(
    home: Home,
) -> None:
    first, second = home.gateway(), home.gateway()
    home.follow(second, home.load(first))
    second.signal(signal.SIGSTOP)  # it does not hear of what follows
    home.unload(first)
    assert home.speaker(first) is None
    assert len(home.files(first)) == 1
    second.signal(signal.SIGKILL)
    second.wait()
    until(lambda: home.files(first) == [])


def test_the_last_gateway_of_a_home_removes_the_files_when_the_one_that_was_told_to_was_killed(
    home: Home,
) -> None:
    first, second = home.gateway(), home.gateway()
    home.follow(second, home.load(first))
    second.signal(signal.SIGSTOP)
    home.unload(first)
    first.signal(signal.SIGKILL)
    first.wait()
    assert len(home.files(second)) == 1
    second.signal(signal.SIGCONT)
    until(lambda: home.files(second) == [])
    assert home.speaker(second) is None


def test_a_gateway_that_starts_removes_what_two_that_were_killed_left(home: Home) -> None:
    first, second = home.gateway(), home.gateway()
    home.follow(second, home.load(first))
    second.signal(signal.SIGSTOP)
    home.unload(first)
    for killed in (first, second):
        killed.signal(signal.SIGKILL)
        killed.wait()
    assert len(home.files(first)) == 1
    assert home.files(home.gateway()) == []
