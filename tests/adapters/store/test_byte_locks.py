"""Locks on bytes of a file: between descriptions, between processes, and after the end of one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adapters.errors import AdapterStoreError
from adapters.store.byte_locks import ByteLocks

HOLDER = """
import sys
from pathlib import Path
from adapters.store.byte_locks import ByteLocks
locks = ByteLocks(Path(sys.argv[1]))
print(locks.take("a", alone=True), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def test_many_share_a_key_and_one_has_it_alone(path: Path) -> None:
    with ByteLocks(path) as one, ByteLocks(path) as other, ByteLocks(path) as third:
        assert one.take("a", alone=False)
        assert other.take("a", alone=False)
        assert not third.take("a", alone=True)
        assert third.take("b", alone=True)
        assert not one.take("b", alone=False)
        one.leave("a")
        assert not third.take("a", alone=True)
        other.close()
        assert third.take("a", alone=True)
        assert not one.take("a", alone=False)


def test_who_waits_gets_the_key_when_it_is_free(path: Path) -> None:
    with ByteLocks(path) as one, ByteLocks(path) as other:
        assert one.take("a", alone=True)
        waiting = threading.Thread(target=other.wait, args=("a",), kwargs={"alone": False, "seconds": 60})
        waiting.start()
        one.leave("a")
        waiting.join(60)
        assert not waiting.is_alive()
        assert not one.take("a", alone=True)


def test_who_waits_too_long_is_told_so(path: Path) -> None:
    with ByteLocks(path) as one, ByteLocks(path) as other:
        assert one.take("a", alone=True)
        with pytest.raises(AdapterStoreError, match="Another process"):
            other.wait("a", alone=False, seconds=0)


def test_what_a_killed_process_had_is_free_at_once(path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with ByteLocks(path) as mine:
            assert not mine.take("a", alone=False)
            holder.kill()
            holder.wait(60)
            assert mine.take("a", alone=True)


def test_a_program_that_is_started_meanwhile_holds_nothing(path: Path) -> None:
    with ByteLocks(path) as one, ByteLocks(path) as other:
        assert one.take("a", alone=True)
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
            one.close()
            assert other.take("a", alone=True)
            child.kill()


def test_a_closed_file_cannot_be_locked(path: Path) -> None:
    locks = ByteLocks(path)
    locks.close()
    locks.close()
    with pytest.raises(OSError, match="closed"):
        locks.take("a", alone=False)
