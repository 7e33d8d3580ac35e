"""Of several processes one does it; the others wait, or are sent away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bases.process_lock import only_process

HOLD = """
import sys
from pathlib import Path
from bases.process_lock import only_process
with only_process(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""
PROJECT = Path(__file__).resolve().parents[2]


class SentAwayError(Exception):
    """What the one who comes second raises here."""


@contextmanager
def held_elsewhere(lock_file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its standard input closes, or it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.kill()


def never() -> None:
    pytest.fail("nobody holds it")


def test_who_comes_second_says_so_once_and_waits(tmp_path: Path) -> None:
    said: list[str] = []
    with held_elsewhere(tmp_path / "lock") as other:

        def wait() -> None:
            said.append("waiting")
            assert other.stdin is not None
            other.stdin.close()  # it ends

        with only_process(tmp_path / "lock", wait):
            assert said == ["waiting"]
            assert other.wait(30) == 0


def test_who_raises_is_sent_away_and_takes_nothing(tmp_path: Path) -> None:
    def refuse() -> None:
        raise SentAwayError

    with held_elsewhere(tmp_path / "lock") as other:
        with pytest.raises(SentAwayError), only_process(tmp_path / "lock", refuse):
            pytest.fail("the other one holds it")
        assert other.poll() is None


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "lock") as other:
        other.kill()
        other.wait(30)
        with only_process(tmp_path / "lock", never):
            pass


def test_it_is_free_again_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(SentAwayError), only_process(tmp_path / "lock", never):
        raise SentAwayError
    with only_process(tmp_path / "lock", never):
        pass
