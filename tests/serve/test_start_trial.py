"""A start that is timed: it comes to ready and nothing of it stays, or it says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from serve import start_trial
from serve.errors import StartTrialError
from serve.observability.startup import READY
from serve.start_trial import Stage, start_once
from tests.patience import patient


def of_our_children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def stands_in(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let a few lines of Python be the gateway."""
    monkeypatch.setattr(start_trial, "_COMMAND", (sys.executable, "-c", script))


def test_the_stages_of_a_real_start_are_in_order_and_end_with_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    before = of_our_children()
    stages = start_once(("--engine", "scripted"), limit_seconds=patient(60.0))
    names = [stage.name for stage in stages]
    assert names[0] == "command line read"
    assert names[-1] == READY
    assert names.index("listening") < names.index("base read") < names.index("adapters restored")
    assert [stage.seconds for stage in stages] == sorted(stage.seconds for stage in stages)
    assert stages[0].seconds > 0
    assert of_our_children() <= before


def test_a_gateway_that_cannot_start_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOTSWAP_HOME", str(tmp_path / "home"))
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    flags = ("--engine", "scripted", "--registry-url", f"sqlite:///{blocked}/registry.db")
    with pytest.raises(StartTrialError, match="the server cannot start"):
        start_once(flags, limit_seconds=patient(60.0))


def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    before = of_our_children()
    stands_in(monkeypatch, "import sys, time; print('busy', file=sys.stderr, flush=True); time.sleep(600)")
    with pytest.raises(StartTrialError, match=r"within 0\.2 s, or ended before"):
        start_once(limit_seconds=0.2)
    assert of_our_children() <= before


def test_stages_that_are_told_late_stand_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own stages are asked for when it is up."""
    script = """
import sys, time
say = lambda line: print(line, file=sys.stderr, flush=True)
say('no JSON at all')
say('["not", "an", "object"]')
say('{"stage": "engine up", "stage_seconds": 3.0, "message": ""}')
say('{"stage": "weights loaded", "stage_seconds": 2.0, "message": ""}')
say('{"stage": "ready", "stage_seconds": 4.0, "message": ""}')
time.sleep(600)
"""
    stands_in(monkeypatch, script)
    found = start_once(limit_seconds=patient(30.0))
    assert found == [Stage("weights loaded", 2.0), Stage("engine up", 3.0), Stage(READY, 4.0)]
