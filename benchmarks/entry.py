"""How a measurement ends as a command."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from bases.errors import HotswapError
from benchmarks.errors import PlanError
from benchmarks.sigterm import end_on_sigterm


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
