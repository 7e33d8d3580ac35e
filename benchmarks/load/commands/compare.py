"""`hotswap bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.load.commands.console import say, show
from benchmarks.load.commands.finish import EXIT_INVALID


def compare(
    first: Annotated[Path, typer.Argument(help="result.json, or its folder: what was.")],
    second: Annotated[Path, typer.Argument(help="result.json, or its folder: what is now.")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on", help="METRIC:CHANGE that makes the exit code 1, e.g. goodput:-5%. Repeatable."
        ),
    ] = None,
) -> None:
    """Two results side by side; those of `suite` part by part.

    With --fail-on a run of the first that the second lacks makes the exit code 1 too.

    Example: hotswap bench compare before after --fail-on goodput:-5% --fail-on ttft_p99:+10%
    """
    from benchmarks.load.comparison import broken, missing_runs, parse_limit, reasons_against
    from benchmarks.load.comparison import compare as compare_measurements
    from benchmarks.load.report.tables import comparison_table
    from benchmarks.load.suite.result import read_comparable

    limits = [parse_limit(text) for text in fail_on or ()]
    one, other = read_comparable(first), read_comparable(second)
    differences = compare_measurements(one, other)
    for reason in reasons_against(one, other):
        say(f"careful: {reason}")
    show(comparison_table(differences))
    beyond = broken(limits, differences)
    for each in beyond:
        change = "is missing" if each.change is None else f"changed by {each.change:+.1%}"
        say(f"{each.metric} of {each.run} {change}, which is worse than it may be")
    if beyond or (limits and missing_runs(one, other)):
        raise typer.Exit(EXIT_INVALID)
