"""Verbs that meet: races of loads, requests during a swap, and the end of the manager."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest

from adapters.name import AdapterReference, AdapterVersion
from serve.errors import (
    DrainingError,
)
from serve.observability.events import STATE_ACTION
from tests.serve.lifecycle.held_requests import MakeBench, SlowEngine, held, request, speaker


async def test_a_load_is_written_down_with_who_and_what(bench: MakeBench) -> None:
    made = bench()
    outcome = await made.manager.load("risk", made.source("here"), actor="alice")
    await made.manager.close()
    (event,) = made.registry.list_events(without_actions=[STATE_ACTION])
    assert (event.event.actor, event.event.action, event.event.outcome) == ("alice", "load", "done")
    assert (event.event.name, event.event.digest) == ("risk", outcome.managed.version.digest)
    detail = dict(event.event.detail)
    assert set(cast("dict[str, float]", detail.pop("phase_seconds"))) >= {"check", "store", "load", "total"}
    assert detail == {"source": "here"}
    steps = [record.event for record in made.registry.list_events(action=STATE_ACTION)]
    assert [step.outcome for step in reversed(steps)] == [
        "registered",
        "checked",
        "loading",
        "probing",
        "live",
    ]
    assert {step.digest for step in steps} == {outcome.managed.version.digest}
    assert {"check", "store", "load", "probe", "total"} <= outcome.managed.phase_seconds.keys()
    seconds = made.metrics.registry.get_sample_value("hotswap_adapter_load_seconds_count", {"phase": "total"})
    assert seconds == 1


async def test_two_racing_loads_of_one_name_come_one_after_the_other(bench: MakeBench) -> None:
    made = bench(engine=SlowEngine())
    engine = made.engine
    assert isinstance(engine, SlowEngine)
    engine.may_load.clear()
    first = asyncio.create_task(made.load("risk", 0))
    await engine.loading.wait()
    second = asyncio.create_task(made.load("risk", 1))
    await asyncio.sleep(0)
    assert made.manager.busy == 2
    assert held(made) == []
    engine.may_load.set()
    older, newer = await first, await second
    assert older != newer
    assert speaker(made) == newer
    await made.manager.wait_quiet()
    assert held(made) == [newer]
    assert made.registry.get(AdapterReference("risk")).version.short == newer.partition("@")[2]


async def test_two_racing_loads_of_the_same_content_load_it_once(bench: MakeBench) -> None:
    made = bench()
    source = made.source("same")
    outcomes = await asyncio.gather(*(made.manager.load("risk", source, actor="test") for _ in range(2)))
    assert [outcome.created for outcome in outcomes] == [True, False]
    assert len(made.engine.adapters) == 1


async def test_names_do_not_wait_for_each_other(bench: MakeBench) -> None:
    made = bench(engine=SlowEngine())
    engine = made.engine
    assert isinstance(engine, SlowEngine)
    engine.may_load.clear()
    slow = asyncio.create_task(made.load("risk", 0))
    await engine.loading.wait()
    engine.may_load.set()
    version = await made.load("tone", 1)
    assert speaker(made, "tone") == version
    await slow


async def test_requests_of_both_versions_are_answered_by_their_own_during_a_swap(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    running = await request(made)
    new = await made.load("risk", 1)
    later = await request(made)
    assert held(made) == sorted([old, new])
    assert (await running.end(), await later.end()) == (old, new)
    while len(made.engine.adapters) > 1:
        await asyncio.sleep(0)
    assert held(made) == [new]


async def test_no_verb_begins_after_the_manager_is_closed(bench: MakeBench) -> None:
    made = bench()
    await made.load("risk")
    await made.manager.close()
    with pytest.raises(DrainingError):
        await made.load("risk", 1)
    with pytest.raises(DrainingError):
        await made.manager.unload("risk", actor="test")


async def test_versions_in_the_store_cannot_be_changed_from_their_source(
    bench: MakeBench, tmp_path: Path
) -> None:
    made = bench()
    version = await made.load("risk", 0)
    config = made.root / "seed-0" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 99}))
    outcome = await made.manager.load("risk", "seed-0", actor="test")
    assert isinstance(outcome.replaced, AdapterVersion)
    assert str(outcome.replaced) == version
    assert outcome.managed.handle.path.is_relative_to(tmp_path / "store")
