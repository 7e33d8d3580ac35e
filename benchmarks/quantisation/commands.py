"""Makes bases and adapters with the project's own commands, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.quantisation.errors import MadeBaseError
from benchmarks.quantisation.fleet import Say
from benchmarks.surroundings import CHECKOUT

# GPTQ of the default base takes three minutes on two cores, its recovery adapter four more.
LONGEST_SECONDS = 1800.0
_SHOWN_LINES = 6


def hotswap(*arguments: str, home: Path, say: Say) -> float:
    """Run `hotswap ARGUMENTS` and return the seconds it took. Raises MadeBaseError with its own last lines."""
    say(f"hotswap {' '.join(arguments)}")
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "hotswap", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=CHECKOUT,
                env={**os.environ, "HOTSWAP_HOME": str(home)},
                timeout=LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MadeBaseError(
                f"`hotswap {' '.join(arguments)}` did not end within {LONGEST_SECONDS:g} s"
            ) from None
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").splitlines()
    if done.returncode != 0:
        tail = "\n".join(f"  {line}" for line in lines[-_SHOWN_LINES:])
        raise MadeBaseError(
            f"`hotswap {' '.join(arguments)}` ended with exit code {done.returncode}:\n{tail}"
        )
    return time.monotonic() - started
