"""Which build of torch to install on a CPU host, and from where.

PyPI's torch for Linux is a CUDA build of several gigabytes; the CPU build has the local version `+cpu`.
Some hosts have an index or a folder of wheels configured in which pip finds it; everywhere else it comes
from PyTorch's own index.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class TorchChoice:
    """Arguments for `pip install` that give the CPU build, and the reason in words."""

    arguments: tuple[str, ...]
    reason: str


def choose_torch(version: str, ask_pip: Callable[[list[str]], str]) -> TorchChoice:
    """Choose the source of torch `version`, e.g. "2.13.0".

    `ask_pip` runs pip with the arguments that it is given and returns what pip printed, "" if pip failed.
    The question reads index pages only, no wheel.
    """
    build = f"{version}+cpu"
    if build in listed_versions(ask_pip(["index", "versions", "torch"])):
        return TorchChoice((f"torch=={build}",), f"torch {build}: pip finds this CPU build by itself")
    return TorchChoice(
        # --index-url, not --extra-index-url: nothing but torch may come from there.
        (f"torch=={build}", "--index-url", PYTORCH_CPU_INDEX),
        f"torch {build}: pip finds no CPU build by itself, so it comes from PyTorch's CPU wheel index",
    )


def listed_versions(printed: str) -> set[str]:
    """The versions in the output of `pip index versions`."""
    match = re.search(r"^Available versions: (.*)$", printed, re.MULTILINE)
    return {version.strip() for version in match[1].split(",")} if match else set()
