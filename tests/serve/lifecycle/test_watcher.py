"""The watcher of the adapter root: what is new, complete and good is live; nothing else is touched."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.registry.registry import Registry
from adapters.store.store import digest_of
from serve.engine.scripted import Script
from serve.errors import DrainingError
from serve.lifecycle.watcher import FolderWatcher
from tests.patience import patient
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]


def watcher(gateway: ScriptedGateway, **options: Any) -> FolderWatcher:
    registry = gateway.life._registry
    assert isinstance(registry, Registry)
    return FolderWatcher(
        gateway.settings.adapter_folder,
        gateway.gateway.adapters,
        registry,
        gateway.gateway.events,
        seconds=1.0,
        **options,
    )


async def look(watch: FolderWatcher, times: int = 2) -> None:
    for _ in range(times):
        await watch.look()


def live(gateway: ScriptedGateway, name: str = "risk") -> str | None:
    status = gateway.gateway.adapters.status(name)
    return str(status.live) if status is not None and status.live is not None else None


def folder(gateway: ScriptedGateway, source: str) -> Path:
    return gateway.settings.adapter_folder / source


async def events(gateway: ScriptedGateway) -> list[tuple[str, str, str]]:
    await gateway.gateway.events.flush()
    records = await gateway.gateway.events.page(actor="watcher")
    return [(r.event.action, r.event.outcome, str(r.event.name)) for r in reversed(records)]


async def test_a_folder_is_live_when_two_looks_saw_it_the_same(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    watch = watcher(gateway)
    await look(watch)
    gateway.make_adapter("risk/v1")
    gateway.make_adapter("tone", seed=1)
    await look(watch, 1)
    assert (live(gateway), live(gateway, "tone")) == (None, None)
    await look(watch, 1)
    first = live(gateway)
    assert first is not None
    assert live(gateway, "tone") is not None
    gateway.make_adapter("risk/v2", seed=2)
    await look(watch)
    assert live(gateway) not in (None, first)
    assert sorted(await events(gateway)) == [
        ("load", "done", "risk"),
        ("load", "done", "risk"),
        ("load", "done", "tone"),
    ]


async def test_a_folder_that_still_grows_is_waited_for(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    watch = watcher(gateway)
    weights = folder(gateway, gateway.make_adapter("risk/v1")) / WEIGHTS_NAME
    content = weights.read_bytes()
    weights.unlink()
    await look(watch, 3)
    for end in (100, 200):
        weights.write_bytes(content[:end])
        await look(watch, 1)
    weights.write_bytes(content)
    await look(watch, 1)
    assert await events(gateway) == []
    await look(watch, 1)
    assert live(gateway) is not None


async def test_of_several_new_versions_the_newest_is_taken(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    for number, source in enumerate(("risk/c", "risk/a", "risk/b")):
        gateway.make_adapter(source, seed=number)
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            os.utime(folder(gateway, source) / name, (1000 + number, 1000 + number))
    await look(watcher(gateway), 4)
    status = gateway.gateway.adapters.status("risk")
    assert status is not None
    assert [version.source for version in status.versions] == ["risk/b"]


async def test_a_bad_folder_is_reported_once_and_the_old_version_serves_on(
    scripted_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await scripted_gateway()
    watch = watcher(gateway)
    gateway.make_adapter("risk/v1")
    await look(watch)
    before = live(gateway)
    bad = folder(gateway, gateway.make_adapter("risk/v2", seed=1)) / WEIGHTS_NAME
    content = bad.read_bytes()
    bad.write_bytes(b"\xff" * 64)
    gateway.make_adapter("Not A Name/v1", seed=2)
    with caplog.at_level(logging.WARNING, "hotswap.adapters"):
        await look(watch, 5)
    assert live(gateway) == before
    assert await events(gateway) == [
        ("load", "done", "risk"),
        ("load", "adapter_name_invalid", "None"),
        ("load", "adapter_check_failed", "risk"),
    ]
    assert caplog.text.count("is not loaded") == 2
    bad.write_bytes(content)
    await look(watch)
    assert live(gateway) not in (None, before)


async def test_what_is_known_by_its_digest_is_left_alone_after_a_restart(
    scripted_gateway: MakeGateway,
) -> None:
    first = await scripted_gateway()
    watch = watcher(first)
    for seed in (0, 1):
        first.make_adapter(f"risk/v{seed}", seed=seed)
        await look(watch)
    first.make_adapter("tone/v1", seed=2)
    await look(watch)
    newest = live(first)
    await first.gateway.adapters.rollback("risk", actor="me")
    rolled_back = live(first)
    await first.gateway.adapters.unload("tone", actor="me")
    await look(watch, 3)
    assert (live(first), live(first, "tone")) == (rolled_back, None)
    await first.life.down()
    second = await scripted_gateway()
    (folder(second, "risk/v1") / CONFIG_NAME).touch()
    await look(watcher(second), 3)
    assert (live(second), live(second, "tone")) == (rolled_back, None)
    assert rolled_back not in (None, newest)


async def test_what_is_not_the_folders_fault_is_tried_again_ever_less_often(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(Script(load_error="out of slots"))
    watch = watcher(gateway)
    gateway.make_adapter("risk/v1")
    await look(watch, 12)
    assert [outcome for _, outcome, _ in await events(gateway)] == ["adapter_error"] * 3
    gateway.engine.script.load_error = None
    await look(watch, 8)
    assert live(gateway) is not None


async def test_a_folder_that_goes_takes_nothing_with_it(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    watch = watcher(gateway)
    gateway.make_adapter("risk/v1")
    await look(watch)
    before = live(gateway)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        (folder(gateway, "risk/v1") / name).unlink()
    folder(gateway, "risk/v1").rmdir()
    await look(watch)
    assert live(gateway) == before


async def test_links_out_of_the_root_and_hidden_folders_are_not_followed(
    scripted_gateway: MakeGateway, tmp_path: Path
) -> None:
    gateway = await scripted_gateway()
    gateway.make_adapter("risk/.unfinished")
    gateway.make_adapter("../elsewhere", seed=1)
    folder(gateway, "tone").symlink_to(tmp_path / "elsewhere")
    await look(watcher(gateway), 3)
    assert gateway.engine.adapters == {}
    assert [outcome for _, outcome, _ in await events(gateway)] == ["adapter_source_refused"]


async def test_it_looks_until_the_server_takes_no_more_verbs(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    ticks: list[float] = []

    async def tick(seconds: float) -> None:
        ticks.append(seconds)
        if len(ticks) == 3:
            gateway.gateway.adapters.refuse()
            gateway.make_adapter("tone/v1", seed=1)
        await asyncio.sleep(0)

    gateway.make_adapter("risk/v1")
    watch = watcher(gateway, tick=tick)
    watch.start()
    assert watch._task is not None
    async with asyncio.timeout(patient(10)):
        await asyncio.wait({watch._task})
    assert live(gateway) is not None
    assert ticks == [1.0] * len(ticks)
    with pytest.raises(DrainingError):
        await watch.look()
    await watch.close()


async def test_a_look_that_fails_is_not_the_last(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await scripted_gateway()
    looks = asyncio.Semaphore(0)

    def broken(root: Path) -> None:
        raise RuntimeError("the file system is ill")

    async def tick(seconds: float) -> None:
        looks.release()
        await asyncio.sleep(0)

    monkeypatch.setattr("serve.lifecycle.watcher.find_versions", broken)
    watch = watcher(gateway, tick=tick)
    watch.start()
    async with asyncio.timeout(patient(10)):
        for _ in range(3):
            await looks.acquire()
    await watch.close()
    assert "looking into the adapter root failed" in caplog.text


async def test_a_folder_that_cannot_be_looked_into_keeps_no_other_out(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await scripted_gateway()
    for seed, name in enumerate(("afraid", "risk", "tone")):
        gateway.make_adapter(f"{name}/v1", seed=seed)

    def digest(source: Path) -> str | None:
        if source.parent.name == "afraid":
            raise OSError(errno.EIO, "Input/output error")
        return digest_of(source)

    monkeypatch.setattr("serve.lifecycle.watcher.digest_of", digest)
    watch = watcher(gateway)
    await look(watch)
    assert live(gateway, "afraid") is None
    assert live(gateway, "risk") is not None
    assert live(gateway, "tone") is not None
    assert "the adapter folder afraid could not be looked into" in caplog.text
    monkeypatch.undo()  # the disk is well again
    await look(watch, 1)
    assert live(gateway, "afraid") is not None
