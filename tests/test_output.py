"""The command line where its own output cannot be written: one line that says so, and exit code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

import hotswap

PROJECT = Path(__file__).resolve().parents[1]


def run(*arguments: str, stdout: IO[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hotswap", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        timeout=120,
    )


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("arguments", [("--help",), ("adapters", "check", "missing", "--base", "none")])
def test_standard_output_on_a_full_disk_is_named(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "hotswap: standard output cannot be written: No space left on device. Free space there, or name another "
        "place.\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = run("adapters", "check", "missing", "--base", "none", stdout=gone)
    assert (done.returncode, done.stderr) == (1, "")


def test_other_errors_of_the_system_are_bugs_and_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "No such file or directory", "something")

    monkeypatch.setattr(hotswap, "app", fail)
    with pytest.raises(FileNotFoundError):
        hotswap.main()
