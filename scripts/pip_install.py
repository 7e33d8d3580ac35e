"""Run pip and show where it is: so many of so many packages, instead of a line or three for each.

pip's whole output goes to a log in the environment, and the end of it to the screen when pip fails.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOG_NAME = "hotswap-setup.log"
_LINE_EVERY_SECONDS = 10.0
_TAIL_LINES = 25


class PipError(Exception):
    """pip failed; the text holds its last lines and the place of the log."""


class PipProgress:
    """Turns pip's output into short lines on where it is. Knows nothing of processes or screens."""

    def __init__(self, total: int, installed: Callable[[], int]) -> None:
        self._total = total
        self._count_installed = installed
        self._seen = 0
        self._current = ""
        self._installing = False

    def feed(self, line: str) -> None:
        """Take one line of pip's output."""
        if line.startswith("Installing collected packages"):
            self._installing = True
        elif match := re.match(
            r"(?:Collecting|Processing|Requirement already satisfied:) (.*?)(?: \(from .*)?$", line
        ):
            self._seen += 1
            self._current = match[1].rsplit("/", 1)[-1]
        elif match := re.match(r"\s+(?:Downloading|Using cached) \S+ \((.*)\)$", line):
            self._current = f"{self._current.split(',')[0]}, {match[1]}"

    def describe(self) -> str:
        """One line on the present state."""
        if self._installing:
            return f"installing: {min(self._count_installed(), self._total)} of {self._total} packages"
        return f"fetching: {min(self._seen, self._total)} of {self._total} packages ({self._current})"


def run_pip(environment: Path, arguments: list[str], *, packages: int) -> None:
    """Run `pip install ARGUMENTS` in the environment and show its progress over `packages` packages.

    Raises PipError. A keyboard interrupt ends pip as well.
    """
    site_packages = next(iter((environment / "lib").glob("python3.*/site-packages")))
    before = _count_installed(site_packages)
    progress = PipProgress(packages, lambda: _count_installed(site_packages) - before)
    lines: queue.Queue[str | None] = queue.Queue()
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", *_QUIET, *arguments]
    with (environment / LOG_NAME).open("a") as log:
        log.write(f"\n$ pip install {' '.join(arguments)}\n")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        reader = threading.Thread(target=_copy, args=(process, lines), daemon=True)
        reader.start()
        try:
            tail = _follow(lines, log.write, progress)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.wait() != 0:
        raise PipError("\n".join([*tail, f"pip failed; all it said is in {environment / LOG_NAME}"]))


_QUIET = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-warn-script-location"]


def _copy(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Move pip's lines into the queue; None marks the end."""
    if process.stdout is not None:
        with process.stdout as printed:
            for line in printed:
                lines.put(line)
    lines.put(None)


def _follow(
    lines: queue.Queue[str | None], record: Callable[[str], object], progress: PipProgress
) -> list[str]:
    """Show progress until pip has nothing more to say; returns its last lines."""
    screen = _Screen()
    tail: list[str] = []
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            screen.show(progress.describe())
            continue
        if line is None:
            screen.end()
            return tail
        record(line)
        tail = [*tail[1 - _TAIL_LINES :], line.rstrip()]
        progress.feed(line.rstrip())
        screen.show(progress.describe())


def _count_installed(site_packages: Path) -> int:
    return sum(1 for _ in site_packages.glob("*.dist-info"))


class _Screen:
    """One line that changes on a terminal; a line now and then in a log."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._shown_at = time.monotonic()

    def show(self, text: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K    {text[:100]}", end="", flush=True)
        elif time.monotonic() - self._shown_at >= _LINE_EVERY_SECONDS:
            self._shown_at = time.monotonic()
            print(f"    {text}", flush=True)

    def end(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)
