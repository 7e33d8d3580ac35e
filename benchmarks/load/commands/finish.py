"""The end of every mode: files on disk, tables on the terminal, and the exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from benchmarks.load.commands.console import say, show

if TYPE_CHECKING:
    from benchmarks.load.bench import Bench
    from benchmarks.load.result_file import Measurement
    from benchmarks.load.run import RunResult

_SECRET = frozenset({"--key", "--admin-key"})
EXIT_INTERRUPTED = 130  # by Ctrl-C; what was measured before is in the report
EXIT_INVALID = 1  # a run that does not count, or a limit that is broken


def finish(
    mode: str,
    bench: Bench,
    runs: Sequence[RunResult],
    conclusion: Mapping[str, Any] | None = None,
    *,
    fail_invalid: bool = False,
) -> None:
    """Write the report of `runs` into `--out` and show its main tables.

    Raises typer.Exit(1) when `fail_invalid` and a run does not count.
    """
    from benchmarks.load.report.drawing import write_pngs
    from benchmarks.load.report.markdown import conclusion_of, render_markdown
    from benchmarks.load.report.page import render_page
    from benchmarks.load.report.plots import plots_of
    from benchmarks.load.report.tables import findings_of, headline_tables
    from benchmarks.load.result_file import measurement_of, write_measurement
    from benchmarks.surroundings import read_surroundings

    measurement: Measurement = measurement_of(
        mode,
        runs,
        command=command_line(),
        target=bench.target,
        load=bench.settings.shown(),
        slo=bench.slo,
        surroundings=read_surroundings(),
        conclusion=conclusion,
    )
    out = bench.settings.out
    write_measurement(measurement, runs, out)
    plots = plots_of(measurement, runs, png=True)
    (out / "report.md").write_text(render_markdown(measurement, plots), encoding="utf-8")
    (out / "report.html").write_text(render_page(measurement, plots), encoding="utf-8")
    write_pngs(plots, out / "plots")
    for table in headline_tables(measurement):
        show(table)
    for line in conclusion_of(measurement):
        say(line.replace("**", ""))
    for invalid, text in findings_of(measurement):
        say(f"{'INVALID: ' if invalid else ''}{text}")
    say(f"{out}/report.html, report.md, result.json, requests.jsonl, plots/*.png")
    if fail_invalid and not all(run.valid for run in runs):
        raise typer.Exit(EXIT_INVALID)


def command_line() -> str:
    """What was typed, without a key."""
    shown: list[str] = []
    hidden = False
    for part in sys.argv[1:]:
        flag = part.partition("=")[0]
        shown.append("..." if hidden else f"{flag}=..." if flag in _SECRET and flag != part else part)
        hidden = part in _SECRET
    return shlex.join(["hotswap", *shown])
