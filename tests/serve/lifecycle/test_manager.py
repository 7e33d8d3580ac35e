"""The verbs one by one: races, failures, drains and restarts that need exact timing."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.artefact import PROBE_NAME, WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterCheckError, AdapterNameError, AdapterSourceError, RegistryError
from adapters.name import AdapterReference, AdapterVersion
from adapters.probe import Probe, ProbeCase, write_probe
from adapters.target import RoundedBase
from serve.engine.protocol import AdapterHandle
from serve.engine.scripted import SCRIPTED_TARGET, Script, ScriptedEngine
from serve.errors import (
    AdapterMissingError,
    DrainingError,
    LifecycleError,
    ProbeFailedError,
    RequestAbortedError,
    UnknownModelError,
    UnloadFailedError,
)
from serve.lifecycle.board import AdapterUnavailableError
from serve.lifecycle.state import AdapterState
from serve.observability.events import STATE_ACTION
from tests.serve.conftest import make_source
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


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script(load_error="out of slots"), LifecycleError),
        (Script(no_effect=True), ProbeFailedError),
    ],
)
async def test_a_failed_load_leaves_the_old_version_serving(
    bench: MakeBench, script: Script, error: type[Exception]
) -> None:
    made = bench()
    old = await made.load("risk", 0)
    made.engine.script = script
    with pytest.raises(error):
        await made.load("risk", 1)
    assert speaker(made) == old
    assert held(made) == [old]
    assert [str(record.version) for record in made.registry.list_aliases()] == [old]
    failed = [m for m in made.board.versions() if m.state is AdapterState.FAILED]
    assert len(failed) == 1
    assert failed[0].reason
    made.engine.script = Script()
    assert speaker(made, await made.load("risk", 1)) != old


async def test_the_alias_does_not_move_before_the_probe_has_passed(bench: MakeBench) -> None:
    made = bench(engine=SlowEngine())
    engine = made.engine
    assert isinstance(engine, SlowEngine)
    old = await made.load("risk", 0)
    made.engine.gate.clear()
    engine.loading.clear()
    engine.may_load.clear()
    swapping = asyncio.create_task(made.load("risk", 1))
    await engine.loading.wait()
    assert speaker(made) == old
    assert [str(record.version) for record in made.registry.list_aliases()] == [old]
    engine.may_load.set()
    engine.gate.set()
    new = await swapping
    assert speaker(made) == new


async def record_probe(folder: Path, *, tokens: tuple[int, ...] = (0, 1, 2, 9, 8, 7, 6, 5)) -> None:
    """What the trainer of the adapter in `folder` would write beside it."""
    engine = ScriptedEngine()
    handle = AdapterHandle("trained", 1, folder)
    await engine.load_adapter(handle)
    case = ProbeCase(
        prompt_token_ids=[1],
        expected_token_ids=list(tokens),
        adapter_logprobs=await engine.score([1], tokens, handle),
        base_logprobs=await engine.score([1], tokens, None),
    )
    fingerprint = SCRIPTED_TARGET.fingerprint
    write_probe(folder, Probe(base_fingerprint=fingerprint, dtype="float32", tolerance=0.02, cases=[case]))


async def test_a_recorded_probe_is_replayed_and_its_numbers_are_kept(bench: MakeBench) -> None:
    made = bench()
    source = made.source("probed")
    await record_probe(made.root / source)
    outcome = await made.manager.load("risk", source, actor="test")
    probe = outcome.managed.probe
    assert probe is not None
    assert (probe.kind, probe.num_cases, probe.num_tokens) == ("replay", 1, 8)
    assert probe.max_difference_nats < 1e-9
    passed = made.metrics.registry.get_sample_value(
        "hotswap_adapter_probes_total", {"kind": "replay", "outcome": "passed"}
    )
    assert passed == 1


def unfinished(bench: Bench) -> list[str]:
    """Folders of the store that should be gone."""
    return [path.name for path in (bench.root.parent / "store").iterdir() if path.name.startswith(".")]


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / CONFIG_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_alpha": 16}, "2.00 of its trained strength (with 0.5 times its alpha"),
        ({"lora_alpha": 4}, "0.50 of its trained strength (with 2 times its alpha"),
        ({"use_rslora": True}, "2.00 of its trained strength"),
    ],
)
async def test_a_wrong_scale_is_named_and_the_old_version_serves_on(
    bench: MakeBench, changes: dict[str, Any], said: str
) -> None:
    made = bench()
    old = await made.load("risk", 0)
    source = made.source("probed", seed=1)
    await record_probe(made.root / source)
    set_config(made.root / source, **changes)
    with pytest.raises(ProbeFailedError, match=re.escape(said)) as caught:
        await made.manager.load("risk", source, actor="test")
    assert caught.value.cause == "wrong_scale"
    assert speaker(made) == old
    assert held(made) == [old]
    assert unfinished(made) == []


async def test_a_probe_that_was_refused_does_not_stay_with_the_weights(bench: MakeBench) -> None:
    """The same weights with the right probe are loaded, and are live again after a restart."""
    made = bench()
    source, other = made.source("probed", seed=1), made.source("other", seed=2)
    await record_probe(made.root / other)
    right = made.root / source / PROBE_NAME
    (made.root / other / PROBE_NAME).rename(right)
    with pytest.raises(ProbeFailedError) as caught:
        await made.manager.load("risk", source, actor="test")
    assert caught.value.cause == "unlike_training"
    right.unlink()
    await record_probe(made.root / source)
    outcome = await made.manager.load("risk", source, actor="test")
    again = bench()
    await again.manager.converge()
    behind = again.board.behind("risk")
    assert behind is not None
    assert (behind.version, behind.state) == (outcome.managed.version, AdapterState.LIVE)
    assert behind.probe is not None
    assert behind.probe.kind == "replay"


async def test_an_adapter_of_the_original_is_live_on_a_quantised_base_with_a_warning_and_after_a_restart(
    bench: MakeBench,
) -> None:
    def quantised() -> Bench:
        engine = ScriptedEngine(Script(base_shift=0.2))
        engine.facts = replace(engine.facts, quantisation="compressed-tensors")
        rounded = RoundedBase({SCRIPTED_TARGET.fingerprint: "scripted"}, "int8-w8a8", 0.2)
        return bench(engine=engine, fingerprint="9" * 64, rounded=rounded)

    made = quantised()
    source = made.source("probed", seed=1)
    await record_probe(made.root / source)
    outcome = await made.manager.load("risk", source, actor="test")
    assert [warning.code for warning in outcome.report.warnings] == ["base_quantised"]
    assert outcome.managed.probe is not None
    assert outcome.managed.probe.kind == "replay"
    made.engine.script.strength = 0.5
    with pytest.raises(ProbeFailedError, match=r"acts at 0\.50 of its trained strength"):
        await made.manager.load("again", source, actor="test")
    restarted = quantised()
    await restarted.manager.converge()
    behind = restarted.board.behind("risk")
    assert behind is not None
    assert behind.state is AdapterState.LIVE


async def test_without_a_probe_an_adapter_without_effect_is_served(bench: MakeBench) -> None:
    made = bench(probe=False, engine=ScriptedEngine(Script(no_effect=True)))
    version = await made.load("risk")
    assert speaker(made) == version
    assert made.engine.requests == []


async def test_a_check_that_fails_never_reaches_the_engine(bench: MakeBench) -> None:
    made = bench()
    source = made.source("bad")
    weights = made.root / source / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(AdapterCheckError):
        await made.manager.load("risk", source, actor="test")
    assert made.engine.requests == []
    assert made.board.versions() == []
    assert made.store.list() == []


@pytest.mark.parametrize(
    ("name", "source", "error"),
    [
        ("Risk", "seed-0", AdapterNameError),
        ("scripted", "seed-0", AdapterNameError),
        ("risk", "nowhere", AdapterSourceError),
        ("risk", "../seed-0", AdapterSourceError),
    ],
)
async def test_a_bad_name_or_source_is_refused(
    bench: MakeBench, name: str, source: str, error: type[Exception]
) -> None:
    made = bench()
    made.source("seed-0")
    with pytest.raises(error):
        await made.manager.load(name, source, actor="test")
    assert made.manager.busy == 0


async def test_a_registry_that_fails_leaves_the_old_version_serving_and_the_engine_clean(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench()
    old = await made.load("risk", 0)

    def fail(*_: Any, **__: Any) -> None:
        raise RegistryError("the disk is gone")

    monkeypatch.setattr(made.registry, "set_alias", fail)
    with pytest.raises(RegistryError):
        await made.load("risk", 1)
    assert speaker(made) == old
    assert held(made) == [old]


async def test_a_version_in_use_is_not_torn_from_its_request_when_its_load_fails(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draining, wanted again, and then the registry fails: whoever still uses it finishes on it."""
    made = bench()
    first = await made.load("risk", 0)
    running = await request(made)
    second = await made.load("risk", 1)

    def fail(*_: Any, **__: Any) -> None:
        raise RegistryError("the disk is gone")

    monkeypatch.setattr(made.registry, "set_alias", fail)
    with pytest.raises(RegistryError):
        await made.load("risk", 0)
    assert held(made) == sorted([first, second])
    assert await running.end() == first
    while len(made.engine.adapters) > 1:
        await asyncio.sleep(0)
    assert held(made) == [second]


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


async def test_a_cancelled_load_leaves_nothing_in_the_engine(bench: MakeBench) -> None:
    made = bench(engine=SlowEngine())
    engine = made.engine
    assert isinstance(engine, SlowEngine)
    engine.may_load.clear()
    loading = asyncio.create_task(made.load("risk"))
    await engine.loading.wait()
    loading.cancel()
    engine.may_load.set()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert held(made) == []
    (left,) = made.board.versions()
    assert left.state is AdapterState.FAILED
    assert made.registry.list_aliases() == []


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


async def test_after_a_restart_the_same_versions_are_live(bench: MakeBench) -> None:
    before = bench()
    versions = {name: await before.load(name, seed) for name, seed in (("risk", 0), ("tone", 1))}
    await before.load("risk", 2)
    versions["risk"] = await before.load("risk", 0)
    await before.close()
    after = bench()
    await after.manager.converge()
    assert {name: speaker(after, name) for name in versions} == versions
    assert held(after) == sorted(versions.values())
    (outcome,) = [await after.manager.load("risk", "seed-0", actor="test")]
    assert not outcome.created


async def test_after_a_restart_adapters_beyond_the_memory_are_live_without_being_read(
    bench: MakeBench,
) -> None:
    before = bench()
    versions = [await before.load("risk", 0), await before.load("tone", 1)]
    await before.close()
    after = bench(max_resident=1)
    await after.manager.converge()
    assert [speaker(after, name) for name in ("risk", "tone")] == versions
    assert held(after) == versions[:1]


async def test_an_adapter_of_another_base_stays_failed_and_is_unavailable(bench: MakeBench) -> None:
    before = bench()
    await before.load("risk")
    await before.close()
    after = bench(fingerprint="1" * 64)
    await after.manager.converge()
    with pytest.raises(AdapterUnavailableError, match="another base model"):
        speaker(after)
    assert held(after) == []
    assert len(after.registry.list_aliases()) == 1
    version = await after.load("risk")  # content is the same, and now checked against this base
    assert speaker(after) == version


async def test_an_adapter_above_the_rank_of_this_server_is_unavailable(bench: MakeBench) -> None:
    before = bench()
    source = before.source("wide", rank=16)
    await before.manager.load("risk", source, actor="test")
    await before.close()
    after = bench(max_lora_rank=8)
    await after.manager.converge()
    with pytest.raises(AdapterUnavailableError, match=r"rank 16 is above --max-lora-rank 8"):
        speaker(after)


def damage_in_store(bench: Bench, digest: str, damage: str) -> None:
    if damage == "missing":
        bench.store.remove(digest)
        return
    weights = bench.store.path(digest) / WEIGHTS_NAME
    weights.chmod(0o644)
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("bytes", "its files in the store are damaged, and it could not be fetched again from 'seed-0'"),
        ("missing", "its files are not in this server's store, and it could not be fetched again from"),
    ],
)
async def test_an_adapter_damaged_in_the_store_is_unavailable_and_others_serve(
    bench: MakeBench, damage: str, said: str
) -> None:
    before = bench()
    await before.load("risk", 0)
    other = await before.load("tone", 1)
    await before.close()
    damage_in_store(before, before.registry.get(AdapterReference("risk")).version.digest, damage)
    (before.root / "seed-0").rename(before.root / "elsewhere")
    after = bench()
    await after.manager.converge()
    with pytest.raises(AdapterUnavailableError, match=said):
        speaker(after)
    assert speaker(after, "tone") == other
    (before.root / "elsewhere").rename(before.root / "seed-0")
    version = await after.load("risk", 0)  # from its source again
    assert speaker(after) == version


@pytest.mark.parametrize("damage", ["bytes", "missing"])
async def test_files_that_are_damaged_or_missing_are_fetched_again_from_their_source(
    bench: MakeBench, damage: str
) -> None:
    before = bench()
    version = await before.load("risk", 0)
    digest = before.registry.get(AdapterReference("risk")).version.digest
    await before.close()
    damage_in_store(before, digest, damage)
    after = bench()
    await after.manager.converge()
    assert speaker(after) == version
    assert after.store.verify(digest)


async def test_a_source_that_holds_another_version_by_now_is_not_taken_for_the_one_that_is_wanted(
    bench: MakeBench,
) -> None:
    before = bench()
    await before.load("risk", 0)
    await before.close()
    before.store.remove(before.registry.get(AdapterReference("risk")).version.digest)
    shutil.rmtree(before.root / "seed-0")
    make_source(before.root, "seed-0", seed=1)
    after = bench()
    await after.manager.converge()
    with pytest.raises(AdapterUnavailableError, match="its source 'seed-0' holds another version now"):
        speaker(after)
    assert held(after) == []


@pytest.mark.parametrize("script", [Script(load_error="out of slots"), Script(no_effect=True)])
async def test_an_adapter_that_fails_at_the_restart_leaves_no_trace_in_the_engine(
    bench: MakeBench, script: Script
) -> None:
    before = bench()
    await before.load("risk")
    await before.close()
    after = bench(engine=ScriptedEngine(script))
    await after.manager.converge()
    with pytest.raises(AdapterUnavailableError):
        speaker(after)
    assert held(after) == []
    await after.manager.unload("risk", actor="test")
    assert after.registry.list_aliases() == []


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


async def test_an_adapter_loaded_again_for_another_base_is_live_after_the_next_restart(
    bench: MakeBench,
) -> None:
    first = bench()
    await first.load("risk")
    await first.close()
    second = bench(fingerprint="1" * 64)
    await second.manager.converge()
    version = await second.load("risk")
    await second.close()
    third = bench(fingerprint="1" * 64)
    await third.manager.converge()
    assert speaker(third) == version
