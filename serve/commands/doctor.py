"""`hotswap doctor`: look at the machine and the environment, or time a start of the gateway."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from serve.commands.gateway import say
from serve.errors import StartTrialError
from serve.settings import CONFIG_VARIABLE, load_settings

_NUM_STARTS = 2  # the first one reads files that the second one finds in memory
_LIMIT_SECONDS = 600.0


def doctor(
    startup: Annotated[
        bool,
        typer.Option(
            "--startup", help="Start the configured gateway twice and show what the second one did."
        ),
    ] = False,
    within: Annotated[
        float, typer.Option(min=0, help="With --startup: seconds that the second start may take.")
    ] = 20.0,
    config: Annotated[
        Path | None, typer.Option(help=f"TOML file with the gateway's settings. [{CONFIG_VARIABLE}]")
    ] = None,
) -> None:
    """Look at versions, processor, GPU, the lock and known engine defects. Exit code 1 on a warning.

    With --startup the gateway is started as its settings (environment, file) say, but on a free port; no other may
    use its home meanwhile. Exit code 1 where the second start takes longer than --within.

    Example: hotswap doctor
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    if startup:
        _time_starts(within)
        return
    from serve.doctor import examine

    findings = examine(load_settings().home)
    table = Table("", "topic", Column("finding", overflow="fold"))
    marks = {"ok": "[green]ok[/]", "note": "[cyan]note[/]", "warning": "[yellow]warning[/]"}
    for finding in findings:
        table.add_row(marks[finding.level], finding.topic, finding.text)
    Console().print(table)
    raise typer.Exit(1 if any(finding.level == "warning" for finding in findings) else 0)


def _time_starts(within_seconds: float) -> None:
    from serve.start_trial import start_once

    _refuse_beside(load_settings().port)
    starts = []
    for number in range(1, _NUM_STARTS + 1):
        say(f"start {number} of {_NUM_STARTS}")
        starts.append(start_once(limit_seconds=_LIMIT_SECONDS))
    first = {stage.name: stage.seconds for stage in starts[0]}
    table = Table("stage", *("first start, s", "second start, s", "since the stage before, s"))
    before = 0.0
    for stage in starts[-1]:
        earlier = f"{first[stage.name]:.2f}" if stage.name in first else ""
        table.add_row(stage.name, earlier, f"{stage.seconds:.2f}", f"{stage.seconds - before:.2f}")
        before = stage.seconds
    Console().print(table)
    say(f"the second start took {before:.1f} s to ready; {within_seconds:g} s are aimed at")
    raise typer.Exit(1 if before > within_seconds else 0)


def _refuse_beside(port: int) -> None:
    """Raises StartTrialError where a gateway with these settings seems to run: it has the same home."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if port and probe.connect_ex(("127.0.0.1", port)) == 0:
            raise StartTrialError(
                f"something serves on port {port}. Stop it first: two gateways with one home disturb each other."
            )
