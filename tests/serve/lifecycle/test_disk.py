"""A disk that is full, read-only or emptied under the server: what was live serves on, and the error says why."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.errors import (
    AdapterCheckError,
    AdapterStoreError,
    AdapterStoreFullError,
    AdapterStoreReadOnlyError,
)
from adapters.manifest import build_manifest, write_manifest
from adapters.name import AdapterReference
from adapters.store.store import Removal
from serve.engine.scripted import SCRIPTED_TARGET
from serve.errors import LifecycleError
from serve.lifecycle.state import AdapterState
from tests.serve.lifecycle.conftest import Bench

MakeBench = Callable[..., Bench]


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def unfinished(bench: Bench) -> list[str]:
    return [path.name for path in (bench.root.parent / "store").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("call", "number", "error"),
    [
        ("os.fsync", errno.ENOSPC, AdapterStoreFullError),
        ("os.fsync", errno.EDQUOT, AdapterStoreFullError),
        ("os.fsync", errno.EIO, AdapterStoreError),
        ("tempfile.mkdtemp", errno.ENOSPC, AdapterStoreFullError),
        ("tempfile.mkdtemp", errno.EROFS, AdapterStoreReadOnlyError),
        ("tempfile.mkdtemp", errno.EACCES, AdapterStoreReadOnlyError),
    ],
)
async def test_a_disk_that_refuses_leaves_what_was_live_and_nothing_else(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch, call: str, number: int, error: type[Exception]
) -> None:
    made = bench()
    old = await made.load("risk", 0)
    source = made.source("seed-1", seed=1)
    with monkeypatch.context() as broken:
        module = {"os": os, "tempfile": tempfile}[call.partition(".")[0]]
        broken.setattr(module, call.partition(".")[2], failing(number))
        with pytest.raises(error) as refused:
            await made.manager.load("risk", source, actor="test")
    assert type(refused.value) is error
    assert str(made.root.parent) not in str(refused.value)
    assert made.speaker() == old
    assert made.held == [old]
    assert unfinished(made) == []
    assert [str(record.version) for record in made.registry.list_versions()] == [old]
    newer = await made.load("risk", 1)  # there is room again
    assert made.speaker() == newer


async def test_a_store_that_became_read_only_still_brings_up_what_it_has(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bench()
    version = await before.load("risk", 0)
    stale = before.store.open_staging()
    await before.close()
    monkeypatch.setattr(tempfile, "mkdtemp", failing(errno.EROFS))
    monkeypatch.setattr(shutil, "rmtree", failing(errno.EROFS))
    after = bench()
    assert after.store.clean(stale_after_seconds=0) == 0
    await after.manager.converge()
    assert after.speaker() == version
    again = await after.manager.load("tone", "seed-0", actor="test")  # the content is there already
    assert again.created
    await after.manager.unload("tone", actor="test")
    assert after.speaker() == version
    monkeypatch.undo()
    after.store.close_staging(stale)


async def test_a_loaded_version_serves_on_without_its_files_and_its_reload_says_what_is_missing(
    bench: MakeBench,
) -> None:
    made = bench()
    version = await made.load("risk", 0)
    made.lose(made.registry.get(AdapterReference("risk")).version.digest)
    (made.root / "seed-0").rename(made.root / "gone")
    assert made.speaker() == version
    newer = await made.load("risk", 1)
    await made.drained()
    with pytest.raises(
        LifecycleError, match=r"its files are not in this server's store, and it could not be"
    ):
        await made.manager.rollback("risk", actor="test")
    assert made.speaker() == newer
    failed = [managed for managed in made.board.versions() if managed.state is AdapterState.FAILED]
    assert [str(managed.version) for managed in failed] == [version]
    (made.root / "gone").rename(made.root / "seed-0")
    await made.manager.rollback("risk", actor="test")
    assert made.speaker() == version


async def test_a_manifest_that_names_other_bytes_is_refused(bench: MakeBench) -> None:
    made = bench()
    old = await made.load("risk", 0)
    folder = made.root / made.source("seed-1", seed=1)
    fingerprint = SCRIPTED_TARGET.fingerprint
    write_manifest(
        folder, build_manifest(folder, base_fingerprint=fingerprint, base_name="scripted", libraries={})
    )
    weights = folder / WEIGHTS_NAME
    raw = bytearray(weights.read_bytes())
    raw[-2] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(AdapterCheckError) as refused:
        await made.manager.load("risk", folder.name, actor="test")
    assert "hash_mismatch" in {problem.code for problem in refused.value.report.problems}
    assert made.speaker() == old


async def test_files_that_cannot_be_removed_do_not_fail_the_verb(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(keep_versions=1)

    def refuse(digest: str, **_: object) -> Removal:
        raise AdapterStoreReadOnlyError(f"{digest[:8]} stays")

    with monkeypatch.context() as broken:
        broken.setattr(made.store, "remove", refuse)
        for seed in range(3):
            await made.load("risk", seed)
            await made.drained()
    assert len(made.registry.list_versions("risk")) == 2
    assert len(made.store.list()) == 3, "what could not go stays, and is put to use when it is loaded again"
    again = await made.manager.load("risk", "seed-0", actor="test")
    assert made.speaker() == str(again.managed.version)
