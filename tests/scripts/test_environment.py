"""The environment is made step by step, goes on after a failure, and knows when all is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts.environment import Environment, make_empty
from scripts.pip_install import PipError
from scripts.stamp import read_stamp


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout in small: a lock with torch and two packages, nothing of which is ever installed."""
    root = tmp_path / "checkout"
    (root / "requirements").mkdir(parents=True)
    for device in ("cpu", "gpu"):
        (root / "requirements" / f"{device}.lock").write_text(
            "torch==1.0\nTiny_One==1.0  # via x\ntiny.two==2.0\n"
        )
    (root / "pyproject.toml").write_text("[project]\n")
    return root


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real environment with pip, made once: it takes seconds."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    make_empty(folder)
    return folder


class RecordingPip:
    """In place of run_pip: remembers what was asked, fails when told to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fail_at: int | None = None

    def __call__(self, environment: Path, arguments: list[str], *, packages: int) -> None:
        self.calls.append(arguments)
        if self.fail_at == len(self.calls):
            raise PipError("no route to the index")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, empty_environment: Path) -> RecordingPip:
    def copy_empty(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(empty_environment, folder, symlinks=True)

    monkeypatch.setattr("scripts.environment.make_empty", copy_empty)
    recording = RecordingPip()
    monkeypatch.setattr("scripts.environment.run_pip", recording)
    monkeypatch.setattr("scripts.environment.Environment._ask_pip", lambda *_: "")
    return recording


def what(call: list[str]) -> str:
    """Which step a call of pip belongs to."""
    return "torch" if any("torch==" in part for part in call) else "lock" if "-r" in call else "project"


def test_a_second_set_up_has_nothing_to_do(repository: Path, pip: RecordingPip) -> None:
    environment = Environment(repository / ".venv", repository, "cpu")
    assert not environment.is_complete()
    environment.complete()
    assert [what(call) for call in pip.calls] == ["torch", "lock", "project"]
    assert environment.is_complete()
    environment.complete()
    assert len(pip.calls) == 3


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_set_up_that_failed_goes_on_with_the_step_that_failed(
    repository: Path, pip: RecordingPip, fail_at: int
) -> None:
    environment = Environment(repository / ".venv", repository, "cpu")
    pip.fail_at = fail_at
    with pytest.raises(PipError):
        environment.complete()
    assert not environment.is_complete()
    before = len(pip.calls)
    environment.complete()
    expected = ["project"] if fail_at == 3 else ["torch", "lock", "project"]
    assert [what(call) for call in pip.calls[before:]] == expected
    assert environment.is_complete()


def test_a_changed_lock_installs_the_lock_again_and_a_changed_pyproject_only_the_project(
    repository: Path, pip: RecordingPip
) -> None:
    Environment(repository / ".venv", repository, "cpu").complete()
    pip.calls.clear()
    (repository / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    changed = Environment(repository / ".venv", repository, "cpu")
    assert not changed.is_complete()
    assert changed.is_complete(project=False)
    changed.complete()
    assert [what(call) for call in pip.calls] == ["project"]
    pip.calls.clear()
    (repository / "requirements" / "cpu.lock").write_text("torch==1.1\ntiny-one==1.0\ntiny-two==2.0\n")
    Environment(repository / ".venv", repository, "cpu").complete()
    assert [what(call) for call in pip.calls] == ["torch", "lock"]
    assert pip.calls[0][1] == "torch==1.1+cpu"


def test_an_environment_for_another_device_or_from_another_place_is_made_anew(
    repository: Path, pip: RecordingPip
) -> None:
    folder = repository / ".venv"
    Environment(folder, repository, "cpu").complete()
    (folder / "left-over").write_text("")
    Environment(folder, repository, "gpu").complete()
    assert not (folder / "left-over").exists()
    assert [what(call) for call in pip.calls[3:]] == ["lock", "project"]  # CUDA's torch comes with the lock
    moved = folder.rename(repository / "moved")
    assert not Environment(moved, repository, "gpu").is_complete()


def test_an_environment_whose_python_is_gone_is_not_complete(repository: Path, pip: RecordingPip) -> None:
    environment = Environment(repository / ".venv", repository, "gpu")
    environment.complete()
    (repository / ".venv" / "bin" / "python").unlink()
    assert not environment.is_complete()
    environment.complete()
    assert environment.is_complete()


def test_a_package_cut_off_while_being_installed_is_forgotten_before_pip_runs(
    repository: Path, pip: RecordingPip
) -> None:
    environment = Environment(repository / ".venv", repository, "gpu")
    pip.fail_at = 1
    with pytest.raises(PipError):
        environment.complete()
    site_packages = next((repository / ".venv" / "lib").glob("python3.*/site-packages"))
    for name, files in {
        "whole-1.0.dist-info": ["METADATA", "RECORD"],
        "half-1.0.dist-info": ["METADATA"],
    }.items():
        (site_packages / name).mkdir()
        for file in files:
            (site_packages / name / file).write_text("")
    environment.complete()
    assert (site_packages / "whole-1.0.dist-info").exists()
    assert not (site_packages / "half-1.0.dist-info").exists()


def test_a_package_that_left_the_lock_is_uninstalled_and_others_stay(
    repository: Path, pip: RecordingPip, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = repository / ".venv"
    Environment(folder, repository, "gpu").complete()
    site_packages = next((folder / "lib").glob("python3.*/site-packages"))
    for name in ("tiny_two", "of_the_user"):
        metadata = site_packages / f"{name}-2.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
        (metadata / "RECORD").write_text(
            "".join(f"{metadata.name}/{file},,\n" for file in ("METADATA", "RECORD"))
        )
    (repository / "requirements" / "gpu.lock").write_text("torch==1.0\ntiny-one==1.0\n")
    Environment(folder, repository, "gpu").complete()
    assert "no longer in the lock: tiny-two" in capfd.readouterr().out
    assert not (site_packages / "tiny_two-2.0.dist-info").exists()
    assert (site_packages / "of_the_user-2.0.dist-info").exists()
    stamp = read_stamp(folder)
    assert stamp is not None
    assert stamp.packages == ("tiny-one", "torch")


def test_an_empty_environment_has_pip_and_nothing_of_what_was_there(empty_environment: Path) -> None:
    assert (empty_environment / "bin" / "pip").is_file()
    (empty_environment / "left-over").write_text("")
    make_empty(empty_environment)
    assert not (empty_environment / "left-over").exists()


def test_a_new_room_installs_the_project_again_and_a_new_file_in_a_room_does_not(
    repository: Path, pip: RecordingPip
) -> None:
    room = repository / "bases"
    room.mkdir()
    (room / "__init__.py").write_text("")
    Environment(repository / ".venv", repository, "gpu").complete()
    (room / "passport.py").write_text("")
    assert Environment(repository / ".venv", repository, "gpu").is_complete()
    (repository / "hotswap.py").write_text("")
    assert not Environment(repository / ".venv", repository, "gpu").is_complete()
