"""What is live again after a restart, and what becomes of files that were damaged meanwhile."""

from __future__ import annotations

import shutil

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.name import AdapterReference
from serve.engine.scripted import Script, ScriptedEngine
from serve.lifecycle.board import AdapterUnavailableError
from tests.serve.conftest import make_source
from tests.serve.lifecycle.conftest import Bench
from tests.serve.lifecycle.held_requests import MakeBench, held, speaker


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
