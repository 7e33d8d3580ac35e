"""Compiling once, by one process, into a place that is complete or not there. A stand-in for the compiler."""

from __future__ import annotations

import platform
import subprocess
import threading
from pathlib import Path

import pytest

from serve.engine.cpu.lowbit import build, source
from serve.engine.cpu.lowbit.build import KernelBuildError, build_library

COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo "stand-in 1.0"; exit 0; }
echo "$@" >> {log}
while [ $# -gt 0 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a line for each call, and whatever file it is told to write."""
    path = tmp_path / "compiler"
    path.write_text(COMPILER.replace("{log}", str(tmp_path / "calls")))
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setattr(build, "_check", lambda _: "avx2")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return path


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def names(home: Path) -> set[str]:
    return {path.name for path in (home / "kernels").iterdir()} - {".lock"}


def test_it_compiles_once_and_keeps_nothing_but_the_library(tmp_path: Path, compiler: Path) -> None:
    lines: list[str] = []
    path = build_library(tmp_path, progress=lines.append)
    assert path == source.find_library(tmp_path)
    assert {each.name for each in path.parent.iterdir()} == {source.LIBRARY_NAME, source.RECORD_NAME}
    assert "stand-in 1.0" in (path.parent / source.RECORD_NAME).read_text()
    assert names(tmp_path) == {source.library_key()}
    made = calls(tmp_path)
    assert len(made) == len(source.ISA_FLAGS) + 2
    assert [flags for flags in made if "-mavx2 " in flags and "-DHOTSWAP_ISA=avx2" in flags]
    assert not [flags for flags in made if "bindings.cpp" in flags and "-mavx" in flags]
    assert lines[0].startswith("Compiling the low-bit kernels with")
    build_library(tmp_path, progress=lines.append)
    assert calls(tmp_path) == made


def test_without_a_compiler_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(KernelBuildError, match="apt-get install g"):
        build_library(tmp_path)
    assert not (tmp_path / "kernels").exists()


def test_another_kind_of_processor_is_not_compiled_for(
    tmp_path: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(KernelBuildError, match="this is aarch64"):
        build_library(tmp_path)


def test_an_error_of_the_compiler_is_told_and_leaves_nothing(tmp_path: Path, compiler: Path) -> None:
    compiler.write_text("#!/bin/sh\necho 'isa.cpp:3: error: no such instruction'\nexit 1\n")
    with pytest.raises(KernelBuildError, match="no such instruction"):
        build_library(tmp_path)
    assert names(tmp_path) == set()


def test_a_library_that_computes_something_else_is_not_kept(
    tmp_path: Path, compiler: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "avx2: int8, 1 tokens: off by 1.0e-02\n", "")

    monkeypatch.undo()
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(subprocess, "run", wrong)
    with pytest.raises(KernelBuildError, match=r"off by 1.0e-02"):
        build_library(tmp_path)
    assert names(tmp_path) == set()


def test_a_place_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path, compiler: Path) -> None:
    (tmp_path / "kernels").write_text("in the way")
    with pytest.raises(KernelBuildError, match=str(tmp_path)):
        build_library(tmp_path)


def test_what_a_killed_build_left_is_removed(tmp_path: Path, compiler: Path) -> None:
    (tmp_path / "kernels" / ".partial-old").mkdir(parents=True)
    build_library(tmp_path)
    assert names(tmp_path) == {source.library_key()}


def test_of_two_that_start_together_one_compiles_and_the_other_waits(tmp_path: Path, compiler: Path) -> None:
    compiling, waits = threading.Event(), threading.Event()
    lines: list[str] = []

    def first(line: str) -> None:
        compiling.set()
        assert waits.wait(30)

    def second(line: str) -> None:
        lines.append(line)
        waits.set()

    thread = threading.Thread(target=build_library, args=(tmp_path,), kwargs={"progress": first})
    thread.start()
    assert compiling.wait(30)
    build_library(tmp_path, progress=second)
    thread.join(30)
    assert lines == ["Another process is compiling the low-bit kernels; waiting for it"]
    assert len(calls(tmp_path)) == len(source.ISA_FLAGS) + 2


def test_the_openmp_library_of_torch_is_linked_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    assert build.openmp_of(tmp_path) == "-fopenmp"
    carried = tmp_path / "lib" / "libgomp-a34b3233.so.1"
    carried.touch()
    assert build.openmp_of(tmp_path) == carried
