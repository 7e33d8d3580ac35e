"""pip runs, shows where it is, and fails with its own words."""

from __future__ import annotations

import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from scripts.pip_install import PipError, PipProgress, run_pip


def test_progress_counts_packages_while_fetching_and_what_lies_there_while_installing() -> None:
    progress = PipProgress(3, lambda: 2)
    progress.feed("Collecting numpy==2.3.5 (from -r requirements/cpu.lock (line 106))")
    progress.feed("  Downloading numpy-2.3.5-cp311-cp311-manylinux.whl (16.9 MB)")
    assert progress.describe() == "fetching: 1 of 3 packages (numpy==2.3.5, 16.9 MB)"
    progress.feed("Requirement already satisfied: six==1.17.0 in lib/python3.11 (from -r cpu.lock (line 9))")
    assert progress.describe().startswith("fetching: 2 of 3 packages")
    progress.feed("Installing collected packages: numpy, six")
    assert progress.describe() == "installing: 2 of 3 packages"


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=True, symlinks=True)
    return folder


def test_pip_installs_and_what_it_said_is_in_the_log(bare_environment: Path, tmp_path: Path) -> None:
    package = tmp_path / "tiny"
    package.mkdir()
    name, version = "hotswap_tiny", "1.0"
    wheel = tmp_path / f"{name}-{version}-py3-none-any.whl"
    write_wheel(wheel, name, version)
    run_pip(bare_environment, ["--no-deps", "--no-index", str(wheel)], packages=1)
    shown = subprocess.run([bare_environment / "bin" / "python", "-c", f"import {name}"], check=False)
    assert shown.returncode == 0
    assert "Successfully installed hotswap" in (bare_environment / "hotswap-setup.log").read_text()


def test_a_failing_pip_raises_with_its_last_lines_and_the_place_of_the_log(bare_environment: Path) -> None:
    with pytest.raises(PipError, match=r"(?s)No matching distribution.*hotswap-setup\.log"):
        run_pip(bare_environment, ["--no-deps", "--no-index", "hotswap-no-such-package==9"], packages=1)


def write_wheel(path: Path, name: str, version: str) -> None:
    """The smallest wheel that pip installs."""
    metadata = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{metadata}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{metadata}/RECORD": record}.items():
            archive.writestr(file, text)
