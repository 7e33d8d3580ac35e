"""Options that several modes have in common."""

from __future__ import annotations

from typing import Annotated

import typer

OwnServeFlags = Annotated[
    list[str] | None,
    typer.Argument(help="After --: flags of `hotswap serve` for a gateway of its own.", metavar="FLAGS"),
]
OwnBase = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Base of a gateway of its own, as for `hotswap serve`, tiny or scripted. Default: default.",
    ),
]
Concurrency = Annotated[str, typer.Option("--concurrency", help="Requests under way at once, with commas.")]
ArmRounds = Annotated[int, typer.Option("--rounds", min=1, max=1000, help="Runs of each arm.")]
