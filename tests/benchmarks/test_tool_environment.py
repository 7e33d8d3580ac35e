"""An outside tool is installed once, into a place of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import tool_environment as environment
from benchmarks.errors import ToolInstallError


def test_it_is_installed_once_after_the_cpu_build_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(command: list[str]) -> str:
        ran.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()
        return ""

    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr(environment, "_ask", lambda _: "")
    programs = environment.tool_environment(tmp_path, "tool==1.0", needs_torch=True)
    assert programs.parent.parent == tmp_path
    assert [command[-1] for command in ran][-1] == "tool==1.0"
    assert any(part.startswith("torch==") and part.endswith("+cpu") for part in ran[1])
    assert environment.tool_environment(tmp_path, "tool==1.0", needs_torch=True) == programs
    assert len(ran) == 3


def test_one_that_could_not_be_installed_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ToolInstallError, match="cannot be started"), monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "no-python"))
        environment.tool_environment(tmp_path, "tool==1.0", needs_torch=False)
    ran: list[list[str]] = []

    def run(command: list[str]) -> str:
        ran.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()
        return ""

    monkeypatch.setattr(environment, "_run", run)
    environment.tool_environment(tmp_path, "tool==1.0", needs_torch=False)
    assert len(ran) == 2
