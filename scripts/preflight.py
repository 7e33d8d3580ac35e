"""What a host must have before set-up starts, checked at once and told with the way out."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import shutil
import subprocess
from pathlib import Path

NEEDED_BYTES = {"cpu": 5 * 1024**3, "gpu": 20 * 1024**3}
"""Disk for the environment, what pip unpacks on the way, and the default base."""

_NVIDIA_SMI_SECONDS = 20.0


def find_problems(device: str, folder: Path) -> list[str]:
    """Everything that would make set-up for `device` in `folder` fail later, one line each."""
    problems = []
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        problems.append(
            f"the locks are for Linux on x86_64, this is {platform.system()} on {platform.machine()}: "
            "use the Dockerfile, or such a machine"
        )
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        problems.append("this Python has no venv module: apt-get install python3-venv (Debian, Ubuntu)")
    if device == "cpu" and not has_library("libnuma.so.1"):
        problems.append("libnuma.so.1 is missing, vLLM's CPU build loads it: apt-get install libnuma1")
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < NEEDED_BYTES[device]:
        problems.append(
            f"{folder} has {free_bytes / 1024**3:.1f} GiB free, set-up for {device} needs "
            f"{NEEDED_BYTES[device] / 1024**3:.0f}: make room or clone onto a larger disk"
        )
    return problems


def has_library(name: str) -> bool:
    """True where the dynamic loader finds the shared library `name`."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def choose_device(wanted: str, held: str | None) -> tuple[str, str]:
    """The device to set up for, "cpu" or "gpu", and the reason.

    `wanted` is "auto", "cpu" or "gpu"; `held` is what the environment was made for, None where there is none.
    auto keeps what is there, so that a set-up never replaces gigabytes unasked.
    """
    if wanted != "auto":
        return wanted, f"DEVICE={wanted}"
    if held is not None:
        return held, "the environment was made for it; DEVICE=cpu or DEVICE=gpu changes that"
    if has_gpu():
        return "gpu", "nvidia-smi lists a GPU; DEVICE=cpu overrides"
    return "cpu", "nvidia-smi lists no GPU; DEVICE=gpu overrides"


def has_gpu() -> bool:
    """True where `nvidia-smi` works and lists a GPU."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and listed.stdout.startswith("GPU ")
