"""The command line where its own output cannot be written: one line that says so, and exit code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest

import hotswap

PROJECT = Path(__file__).resolve().parents[1]


def run(
    *arguments: str, stdout: IO[str], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hotswap", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, **(env or {})},
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


def test_text_that_the_terminal_cannot_show_ends_nothing(tmp_path: Path) -> None:
    lines = [f'{{"prompt": "{word} and more", "completion": "{word}"}}' for word in ("sun", "rain", "cake")]
    (tmp_path / "notes.jsonl").write_text("\n".join(lines))
    with (tmp_path / "said").open("w") as said:
        done = run(
            *("data", "prepare", str(tmp_path / "notes.jsonl"), "--out", str(tmp_path / "结果")),
            stdout=said,
            env={"PYTHONIOENCODING": "latin-1"},
        )
    assert done.returncode == 0, done.stderr
    assert r"\u7ed3\u679c/train.jsonl" in (tmp_path / "said").read_text()


def test_other_errors_of_the_system_are_bugs_and_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "No such file or directory", "something")

    monkeypatch.setattr(hotswap, "app", fail)
    with pytest.raises(FileNotFoundError):
        hotswap.main()
