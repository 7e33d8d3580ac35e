"""The files of the repository, and those of packages that pages speak of."""

from __future__ import annotations

import importlib.util
import subprocess
from functools import cache
from pathlib import Path

from tests.docs.page import PROJECT


@cache
def tree() -> tuple[frozenset[str], str]:
    """(every file of the repository, the text of all its programs)."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    code = "".join(
        (PROJECT / name).read_text(encoding="utf-8")
        for name in listed
        if name.endswith((".py", ".j2", "Dockerfile")) and not name.startswith("tests/docs/")
        if (PROJECT / name).is_file()
    )
    return frozenset(listed), code


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def others_files() -> frozenset[str]:
    """Every file of vLLM and PEFT, whose defects a page shows."""
    roots = [package(name) for name in ("vllm", "peft")]
    return frozenset(
        path.relative_to(root.parent).as_posix() for root in roots for path in root.rglob("*.py")
    )


def folders_of(files: frozenset[str]) -> set[str]:
    return {file[: place + 1] for file in files for place in range(len(file)) if file[place] == "/"}
