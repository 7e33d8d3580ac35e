"""The time line of a start."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serve.observability.startup import note_stage, process_began

_PROJECT = Path(__file__).resolve().parents[3]
_CLOCK_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


def test_a_process_began_before_its_code_and_after_its_parent_made_it() -> None:
    """The clock is the same in both, so that stages of an engine process fit into the gateway's line."""
    code = (
        "import time; from serve.observability.startup import process_began; "
        "print(process_began(), time.monotonic())"
    )
    before = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=_PROJECT, capture_output=True, text=True, check=True
    )
    began, asked = (float(value) for value in said.stdout.split())
    assert before - 2 * _CLOCK_TICK_SECONDS <= began < asked < time.monotonic()


def test_this_process_began_when_the_system_says_so() -> None:
    age_seconds = time.time() - psutil.Process().create_time()
    # psutil counts from the boot time, which it knows to the second.
    assert time.monotonic() - process_began() == pytest.approx(age_seconds, abs=2.0)


def test_a_stage_is_one_line_with_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hotswap.start"):
        note_stage("engine: weights loaded", process_began() + 1.5)
    (record,) = caplog.records
    assert record.getMessage() == "start: engine: weights loaded after 1.50 s"
    assert (record.stage, record.stage_seconds) == ("engine: weights loaded", pytest.approx(1.5, abs=0.02))  # type: ignore[attr-defined]


def test_a_stage_without_a_time_ended_now(caplog: pytest.LogCaptureFixture) -> None:
    before = time.monotonic() - process_began()
    with caplog.at_level(logging.INFO, logger="hotswap.start"):
        note_stage("ready")
    seconds = caplog.records[0].stage_seconds  # type: ignore[attr-defined]
    assert before - 0.02 <= seconds <= time.monotonic() - process_began() + 0.02
