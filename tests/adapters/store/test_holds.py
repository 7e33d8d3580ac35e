"""Who holds a version keeps its files, in every process; who let go of it, or was killed, does not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapters.check import check_adapter
from adapters.errors import AdapterStoreError
from adapters.store import holds
from adapters.store.byte_locks import ByteLocks
from adapters.store.store import LOCK_FILE, AdapterStore, Removal

HOLDER = """
import sys
from pathlib import Path
from adapters.store.store import AdapterStore
hold = AdapterStore(Path(sys.argv[1])).hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""
MakeStore = Callable[[], AdapterStore]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeStore]:
    """Each is what another process has of the same store."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(AdapterStore(tmp_path / "store")))


@pytest.fixture
def digest(adapter: Path) -> str:
    found = check_adapter(adapter, target=None).facts.digest
    assert found is not None
    return found


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_version_goes_when_the_last_has_let_go_of_it(make: MakeStore, adapter: Path, digest: str) -> None:
    one, other = make(), make()
    first, second = one.hold(digest), one.hold(digest)
    there = other.hold(digest)
    one.publish(adapter, digest)
    for hold in (first, there):
        hold.release()
        hold.release()
        assert other.remove(digest) is one.remove(digest) is Removal.HELD
        assert one.verify(digest)
    second.release()
    assert other.remove(digest) is Removal.GONE


def test_who_removes_asks_while_nobody_can_begin_to_hold(make: MakeStore, adapter: Path, digest: str) -> None:
    one, other = make(), make()
    one.publish(adapter, digest)
    holding: list[threading.Thread] = []

    def wanted() -> bool:
        holding.append(threading.Thread(target=other.hold, args=(digest,)))
        holding[0].start()
        holding[0].join(0.1)
        return not holding[0].is_alive()  # it would keep files that are on their way out

    assert one.remove(digest, wanted=wanted) is Removal.GONE
    holding[0].join(60)
    assert not holding[0].is_alive()
    one.publish(adapter, digest)
    assert one.remove(digest) is Removal.HELD


def test_what_is_wanted_stays(make: MakeStore, adapter: Path, digest: str) -> None:
    store = make()
    store.publish(adapter, digest)
    assert store.remove(digest, wanted=lambda: True) is Removal.WANTED
    assert store.verify(digest)


def test_who_cannot_hold_because_somebody_never_ends_removing_is_told_so(
    make: MakeStore, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    monkeypatch.setattr(holds, "WAIT_SECONDS", 0)
    with ByteLocks(tmp_path / "store" / LOCK_FILE) as remover:
        assert remover.take(digest, alone=True)
        with pytest.raises(AdapterStoreError, match=f"{digest[:8]} is being removed"):
            store.hold(digest)


def test_a_killed_process_holds_nothing(make: MakeStore, adapter: Path, digest: str, tmp_path: Path) -> None:
    store = make()
    store.publish(adapter, digest)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "store"), digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert store.remove(digest) is Removal.HELD
        holder.kill()
        holder.wait(60)
    assert store.remove(digest) is Removal.GONE


def test_what_was_found_under_a_hold_is_there_until_it_ends_whoever_removes(
    make: MakeStore, adapter: Path, digest: str
) -> None:
    """Removers look into `wanted` as gateways look into the registry; holders write there before they let go."""
    wanted = threading.Event()
    wrong: list[str] = []
    tries = 0
    user, remover = make(), make()

    def check(when: str, *, there: bool) -> None:
        """After somebody has begun and ended to remove it, which they do all the time."""
        begun = tries
        while tries < begun + 2:
            time.sleep(0.0001)
        if user.verify(digest) is not there:
            wrong.append(when)

    def use() -> None:
        for _ in range(15):
            hold = user.hold(digest)
            user.publish(adapter, digest)
            check("held", there=True)
            wanted.set()
            hold.release()
            check("wanted", there=True)
            wanted.clear()
            check("neither", there=False)

    with ThreadPoolExecutor(1) as pool:
        using = pool.submit(use)
        while not using.done():
            remover.remove(digest, wanted=wanted.is_set)
            tries += 1
        using.result()
    assert wrong == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_nothing_can_be_locked_versions_are_kept_and_none_is_removed(
    make: MakeStore,
    adapter: Path,
    digest: str,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fcntl, "fcntl", refusing(number))
    store = make()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            store.hold(digest).release()
    assert caplog.text.count("cannot be held") == 1
    store.publish(adapter, digest)
    assert store.verify(digest)
    assert store.remove(digest) is Removal.HELD
    folder = store.open_staging()
    assert store.clean() == 0
    assert store.clean(stale_after_seconds=0) == 1
    assert not folder.exists()


def test_a_disk_that_fails_is_no_hold(make: MakeStore, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "fcntl", refusing(errno.EIO))
    store = make()
    with pytest.raises(AdapterStoreError, match="hold a version"):
        store.hold(digest)
    with pytest.raises(AdapterStoreError, match="make a folder"):
        store.open_staging()


def test_what_is_written_into_by_a_living_process_is_not_cleaned_while_it_is_made(
    make: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make(), make()
    genuine, cleaned = tempfile.mkdtemp, []

    def mkdtemp(**given: Any) -> str:
        folder = str(genuine(**given))  # and is not locked yet
        cleaned.append(other.clean())
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    folder = one.open_staging()
    assert cleaned == [0]
    assert folder.is_dir()
    one.close_staging(folder)
    assert not folder.exists()
