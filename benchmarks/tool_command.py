"""A command of an outside tool, run where it sees none of our own packages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from benchmarks.errors import BenchmarkError

_SHOWN_LINES = 5


def clean_environment() -> dict[str, str]:
    """Ours without what points at our own packages."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def output_of(
    command: Sequence[str], *, timeout_seconds: float, error: Callable[[str], BenchmarkError]
) -> str:
    """What the command writes to standard output.

    Raises what `error` makes of the reason, a clause that follows the command's name, where it cannot be started,
    takes longer than `timeout_seconds`, or ends with another exit code than 0.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_seconds,
            env=clean_environment(),
        )
    except subprocess.TimeoutExpired:
        raise error(f"did not end within {timeout_seconds:g} s") from None
    except OSError as reason:
        raise error(f"cannot be started: {reason}") from None
    if done.returncode:
        lines = "\n".join(done.stderr.strip().splitlines()[-_SHOWN_LINES:])
        raise error(f"ended with exit code {done.returncode}:\n{lines}")
    return done.stdout
