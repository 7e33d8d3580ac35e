"""A virtual environment for an outside tool alone: what it needs may clash with what we need."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bases.process_lock import only_process
from benchmarks.closed_loop.errors import ToolInstallError
from scripts.torch_build import choose_torch

_INSTALL_SECONDS = 1800.0
_STAMP = "complete"


def tool_environment(
    root: Path, requirement: str, *, needs_torch: bool, say: Callable[[str], None] = lambda _: None
) -> Path:
    """The folder of programs of an environment that holds `requirement`, e.g. `guidellm==0.8.1`; made once.

    `needs_torch`: the CPU build of our own torch's version goes first, or pip would fetch gigabytes for GPUs.
    Raises ToolInstallError.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = root / f"{requirement.replace('==', '-')}-py{python}"
    root.mkdir(parents=True, exist_ok=True)
    with only_process(
        root / f".{folder.name}.lock", lambda: say(f"waiting for another process: {requirement}")
    ):
        if not (folder / _STAMP).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            say(f"installing {requirement} into {folder}, once")
            _run([sys.executable, "-m", "venv", str(folder)])
            pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
            if needs_torch:
                version = importlib.metadata.version("torch").partition("+")[0]
                choice = choose_torch(version, lambda arguments: _ask([*pip, *arguments]))
                _run([*pip, "install", "--quiet", *choice.arguments])
            _run([*pip, "install", "--quiet", requirement])
            (folder / _STAMP).write_text(requirement + "\n", encoding="utf-8")
    return folder / "bin"


def clean_environment() -> dict[str, str]:
    """Ours without what points at our own packages."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _ask(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    return done.stdout if done.returncode == 0 else ""


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_INSTALL_SECONDS,
            env=clean_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolInstallError(f"{' '.join(command[:4])} did not end well: {error}") from None
    if done.returncode:
        reason = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise ToolInstallError(f"{' '.join(command[-3:])} ended with exit code {done.returncode}:\n{reason}")
