"""Starts the gateway as configured, on a free port of this machine, to see how long that takes, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.errors import StartTrialError
from serve.observability.startup import READY

_PROJECT = Path(__file__).resolve().parents[1]
_COMMAND = (
    sys.executable,
    *("-m", "hotswap", "serve", "--host", "127.0.0.1", "--port", "0"),
    *("--log-format", "json", "--log-level", "info"),
)
_STOP_SECONDS = 60.0
_SHOWN_LINES = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a start, and when it had ended, in seconds after the process began."""

    name: str
    seconds: float


def start_once(flags: Sequence[str] = (), *, limit_seconds: float) -> list[Stage]:
    """The stages of one start to ready, the earliest first. `flags` are more of `hotswap serve`'s.

    Raises StartTrialError with the end of the log where it ends before it is ready, or takes longer.
    """
    stages: list[Stage] = []
    with _running([*_COMMAND, *flags]) as process:
        overdue = threading.Timer(limit_seconds, _end, (process,))
        overdue.start()
        last: deque[str] = deque(maxlen=_SHOWN_LINES)
        try:
            for line in process.stderr or ():
                entry = _entry(line)
                last.append(str(entry.get("message", line.strip())))
                if "stage" in entry:
                    stages.append(Stage(str(entry["stage"]), float(entry["stage_seconds"])))
                    if entry["stage"] == READY:
                        return sorted(stages, key=lambda stage: stage.seconds)
        finally:
            overdue.cancel()
        shown = "; ".join(text for text in last if text) or "it wrote nothing"
        raise StartTrialError(
            f"the gateway was not ready within {limit_seconds:g} s, or ended before: {shown}"[:2000]
        )


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process whose log can be read, asked to end after the block; nothing of it stays behind."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=_PROJECT,
        start_new_session=True,
    ) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_STOP_SECONDS)  # what it still logs would fill the pipe
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _entry(line: str) -> dict[str, Any]:
    """A line of the log as what it holds; other libraries' lines hold nothing."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
