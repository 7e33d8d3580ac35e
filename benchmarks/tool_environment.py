"""A virtual environment for an outside tool alone: what it needs may clash with what we need."""

from __future__ import annotations

import importlib.metadata
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from bases.process_lock import only_process
from benchmarks.errors import ToolInstallError
from benchmarks.tool_command import output_of
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


def _ask(command: list[str]) -> str:
    """What a command says; nothing where it fails."""
    try:
        return _run(command)
    except ToolInstallError:
        return ""


def _run(command: list[str]) -> str:
    return output_of(
        command,
        timeout_seconds=_INSTALL_SECONDS,
        error=lambda reason: ToolInstallError(f"{shlex.join(command)} {reason}"),
    )
