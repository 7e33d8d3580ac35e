from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.check import check_adapter
from adapters.config import CONFIG_NAME
from adapters.errors import (
    AdapterChangedError,
    AdapterNameError,
    AdapterNotFoundError,
    AdapterStoreError,
    AdapterStoreFullError,
    AdapterStoreReadOnlyError,
)
from adapters.manifest import build_manifest, write_manifest
from adapters.store.store import LOCK_FILE, AdapterStore, Removal
from adapters.tiny import make_tiny_adapter
from tests.adapters.conftest import LINEAR_MODULES


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AdapterStore]:
    with contextlib.closing(AdapterStore(tmp_path / "deep" / "store")) as store:
        yield store


def digest_of(folder: Path) -> str:
    digest = check_adapter(folder, target=None).facts.digest
    assert digest is not None
    return digest


def leftovers(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "deep" / "store").glob(".*"))


def test_a_published_version_holds_the_four_known_files_and_nothing_else(store, adapter, tmp_path):
    write_manifest(adapter, build_manifest(adapter, base_fingerprint="f", base_name="", libraries={}))
    for name in ("training_args.bin", "README.md", "tokenizer.json"):
        (adapter / name).write_text("x")
    digest = digest_of(adapter)
    folder = store.publish(adapter, digest)
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_NAME, WEIGHTS_NAME, "hotswap.json"]
    assert (folder / WEIGHTS_NAME).read_bytes() == (adapter / WEIGHTS_NAME).read_bytes()
    assert folder == store.path(digest)
    assert store.list() == [digest]
    assert store.verify(digest)
    assert check_adapter(folder, target=None).ok
    assert leftovers(tmp_path) == []


def test_a_published_version_is_read_only(store, adapter):
    folder = store.publish(adapter, digest_of(adapter))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o555
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}


def test_a_version_outlives_the_folder_it_came_from(store, adapter):
    digest = digest_of(adapter)
    store.publish(adapter, digest)
    (adapter / WEIGHTS_NAME).unlink()
    assert store.verify(digest)


def test_publishing_again_changes_nothing(store, adapter):
    digest = digest_of(adapter)
    folder = store.publish(adapter, digest)
    before = (folder / WEIGHTS_NAME).stat()
    assert store.publish(adapter, digest) == folder
    assert (folder / WEIGHTS_NAME).stat().st_ino == before.st_ino


def test_publishing_again_mends_a_damaged_version(store, adapter):
    digest = digest_of(adapter)
    folder = store.publish(adapter, digest)
    folder.chmod(0o755)
    (folder / WEIGHTS_NAME).unlink()
    assert not store.verify(digest)
    store.publish(adapter, digest)
    assert store.verify(digest)


def test_a_file_that_changed_after_the_check_is_caught(store, adapter, edit_config, tmp_path):
    digest = digest_of(adapter)
    edit_config(lora_alpha=99)
    with pytest.raises(AdapterChangedError, match=digest):
        store.publish(adapter, digest)
    (adapter / WEIGHTS_NAME).unlink()
    with pytest.raises(AdapterChangedError, match=WEIGHTS_NAME):
        store.publish(adapter, digest)
    assert store.list() == []
    assert leftovers(tmp_path) == []


def test_many_threads_publish_one_version_once(store: AdapterStore, adapter: Path, tmp_path: Path):
    digest = digest_of(adapter)
    barrier = threading.Barrier(8)

    def publish() -> Path:
        barrier.wait()
        return store.publish(adapter, digest)

    with ThreadPoolExecutor(8) as pool:
        folders = {future.result() for future in [pool.submit(publish) for _ in range(8)]}
    assert folders == {store.path(digest)}
    assert store.verify(digest)
    assert leftovers(tmp_path) == []


def test_a_reader_never_sees_half_a_version(store, tmp_path):
    folders = [make_tiny_adapter(tmp_path / str(i), linear_modules=LINEAR_MODULES, seed=i) for i in range(6)]
    digests = [digest_of(folder) for folder in folders]
    done = threading.Event()
    halves: list[str] = []

    def watch() -> None:
        while not done.is_set():
            for digest in store.list():
                folder = store.path(digest)
                if not (folder / WEIGHTS_NAME).exists() and folder.exists():
                    halves.append(digest)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(store.publish, folders * 3, digests * 3))
    done.set()
    watcher.join()
    assert halves == []
    assert store.list() == sorted(digests)


def test_two_processes_publish_one_version(store, adapter, tmp_path):
    digest = digest_of(adapter)
    code = (
        "import sys; from pathlib import Path; from adapters.store.store import AdapterStore; "
        "AdapterStore(Path(sys.argv[1])).publish(Path(sys.argv[2]), sys.argv[3])"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "deep" / "store"), str(adapter), digest]
    running = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert store.verify(digest)


def test_a_removed_version_is_gone_and_can_be_published_again(store, adapter, tmp_path):
    digest = digest_of(adapter)
    store.publish(adapter, digest)
    assert store.remove(digest) is Removal.GONE
    assert store.remove(digest) is Removal.ABSENT
    assert store.list() == []
    assert leftovers(tmp_path) == []
    with pytest.raises(AdapterNotFoundError, match=digest[:8]):
        store.path(digest)
    store.publish(adapter, digest)
    assert store.verify(digest)


@pytest.mark.parametrize("digest", ["..", "", "../" + "a" * 61, "A" * 64])
def test_what_is_not_a_digest_never_becomes_a_path(store, adapter, digest):
    for verb in (store.path, store.remove, store.verify, lambda d: store.publish(adapter, d)):
        with pytest.raises(AdapterNameError):
            verb(digest)


def test_cleaning_removes_what_died_and_leaves_what_may_be_alive(store, adapter, tmp_path):
    digest = digest_of(adapter)
    store.publish(adapter, digest)
    root = tmp_path / "deep" / "store"
    for name in (".unfinished-old", "somebody-elses"):
        (root / name / "inner").mkdir(parents=True)
    alive = store.open_staging()
    os.utime(alive, (0, 0))  # however long it takes
    assert AdapterStore(root).clean() == 1
    assert {entry.name for entry in root.iterdir()} == {alive.name, digest, "somebody-elses", LOCK_FILE}
    store.close()  # as the end of its process does
    assert AdapterStore(root).clean() == 1
    assert not alive.exists()


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, AdapterStoreFullError, "Free some space"),
        (errno.EDQUOT, AdapterStoreFullError, "Free some space"),
        (errno.EROFS, AdapterStoreReadOnlyError, "writable"),
        (errno.EACCES, AdapterStoreReadOnlyError, "writable"),
        (errno.EIO, AdapterStoreError, "healthy disk"),
    ],
)
def test_a_failing_disk_is_explained_and_leaves_nothing(
    store, adapter, tmp_path, monkeypatch, number, error, words
):
    digest = digest_of(adapter)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match=words) as caught:
        store.publish(adapter, digest)
    assert str(tmp_path) not in str(caught.value)
    assert leftovers(tmp_path) == []
    monkeypatch.undo()
    assert store.verify(store.publish(adapter, digest).name)


def test_a_root_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AdapterStoreError, match="make the store's folder"):
        AdapterStore(tmp_path / "file" / "store")
