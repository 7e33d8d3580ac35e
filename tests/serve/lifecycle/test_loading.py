"""One load: its probe, and every failure on the way, which leaves the old version serving."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.artefact import PROBE_NAME, WEIGHTS_NAME
from adapters.config import CONFIG_NAME
from adapters.errors import AdapterCheckError, AdapterNameError, AdapterSourceError, RegistryError
from adapters.probe import Probe, ProbeCase, write_probe
from adapters.target import RoundedBase
from serve.engine.protocol import AdapterHandle
from serve.engine.scripted import SCRIPTED_TARGET, Script, ScriptedEngine
from serve.errors import (
    LifecycleError,
    ProbeFailedError,
)
from serve.lifecycle.state import AdapterState
from tests.serve.lifecycle.conftest import Bench
from tests.serve.lifecycle.held_requests import MakeBench, SlowEngine, held, request, speaker


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
