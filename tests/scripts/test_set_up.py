"""The default base is made once, one set-up runs at a time, and only a right Python runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.set_up import (
    BASE_MEMO_NAME,
    KERNELS_MEMO_NAME,
    _base_is_there,
    _kernels_key,
    _only_set_up,
    _set_up_kernels,
)
from scripts.stamp import Stamp, write_stamp

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_a_python_that_the_locks_are_not_for_is_refused_with_the_way_out(tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.18\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["sh", "scripts/with_python.sh", "-c", "print('ran')"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Hotswap needs Python 3.11 or 3.12" in done.stderr
    assert "Python 3.8.18" in done.stderr
    assert done.stdout == ""


def test_the_default_base_is_looked_for_again_when_home_or_conversion_or_a_file_changed(
    tmp_path: Path,
) -> None:
    memo = tmp_path / BASE_MEMO_NAME
    key = {"home": "", "conversion": "1"}
    base = tmp_path / "base"
    base.mkdir()
    assert not _base_is_there(memo, key)
    memo.write_text(json.dumps({**key, "folder": str(base)}))
    assert not _base_is_there(memo, key)
    for name in ("config.json", "model.safetensors"):
        (base / name).write_text("{}")
    assert _base_is_there(memo, key)
    assert not _base_is_there(memo, {**key, "home": "elsewhere"})
    assert not _base_is_there(memo, {**key, "conversion": "2"})
    (base / "model.safetensors").unlink()
    assert not _base_is_there(memo, key)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment for CPUs whose Python notes that it was called, and fails or succeeds as `build` says."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    write_stamp(folder, Stamp("cpu", str(folder), "1", "1", ()))
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\n. {tmp_path}/build\n")
    python.chmod(0o755)
    return folder


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().splitlines())


def test_kernels_are_built_once_and_again_when_they_are_gone_or_what_they_depend_on_changed(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library.so"
    library.touch()
    (tmp_path / "build").write_text(f"echo {library}\n")
    for _ in range(2):
        _set_up_kernels(environment, REPOSITORY)
    assert calls(tmp_path) == 1
    assert "The kernels are ready" in capsys.readouterr().out
    library.unlink()
    _set_up_kernels(environment, REPOSITORY)
    assert calls(tmp_path) == 2
    library.touch()
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path))
    _set_up_kernels(environment, REPOSITORY)
    assert calls(tmp_path) == 3


def test_kernels_that_cannot_be_built_are_a_note_and_are_tried_again_with_another_compiler(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "build").write_text("exit 1\n")
    monkeypatch.setenv("CXX", "no-such-compiler")
    for _ in range(2):
        _set_up_kernels(environment, REPOSITORY)
    assert calls(tmp_path) == 1
    assert "everything works without them" in capsys.readouterr().out
    monkeypatch.setenv("CXX", "sh")
    _set_up_kernels(environment, REPOSITORY)
    assert calls(tmp_path) == 2


def test_kernels_are_not_built_for_a_gpu(tmp_path: Path, environment: Path) -> None:
    write_stamp(environment, Stamp("gpu", str(environment), "1", "1", ()))
    _set_up_kernels(environment, REPOSITORY)
    assert not (environment / KERNELS_MEMO_NAME).exists()


def test_the_sources_of_the_kernels_decide_whether_they_are_built_again(tmp_path: Path) -> None:
    folder = tmp_path / "serve" / "engine" / "cpu" / "lowbit" / "kernels"
    folder.mkdir(parents=True)
    (folder / "isa.cpp").write_text("1")
    before = _kernels_key(tmp_path, "1")
    assert before == _kernels_key(tmp_path, "1")
    (folder / "isa.cpp").write_text("2")
    assert before != _kernels_key(tmp_path, "1")


def test_a_second_set_up_in_the_same_checkout_waits_for_the_first(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from scripts.set_up import _only_set_up\n"
        f"with _only_set_up(Path({str(tmp_path)!r})): print('in', flush=True)"
    )
    with _only_set_up(tmp_path):
        second = subprocess.Popen(
            [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert second.stdout is not None
        assert second.stdout.readline().startswith("Another set-up is running")
        assert second.poll() is None
    rest, _ = second.communicate(timeout=30)
    assert rest == "in\n"
