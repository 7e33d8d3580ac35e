"""What measurements have in common as commands: how they were called, where results go, how they end."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path

import typer
from rich.console import Console

from bases.errors import HotswapError
from benchmarks.errors import PlanError
from benchmarks.sigterm import end_on_sigterm
from benchmarks.surroundings import CHECKOUT


def command_line(name: str) -> str:
    """How `benchmarks.NAME` was called, to be called again."""
    return shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])


def result_folder(name: str, started: datetime, out: Path | None = None) -> Path:
    """Where its results go: `out`, or a folder of the checkout's build/bench with the time in its name."""
    return out or CHECKOUT / "build" / "bench" / name / f"{started:%Y%m%dT%H%M%SZ}"


def run_app(app: typer.Typer, name: str) -> None:
    """Run; what cannot be measured is a message and exit code 1 (2 for options that make no sense)."""
    end_on_sigterm()
    try:
        app()
    except HotswapError as error:
        Console(stderr=True).print(f"{name}: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, PlanError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
