"""`hotswap bench`: settings to runs, a table at the end, a report on disk. Light to import: hotswap.py does."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bases.settings_options import with_options
from benchmarks.load.settings import BENCH_PREFIX, BenchSettings, load_bench_settings

if TYPE_CHECKING:
    from benchmarks.load.bench import Bench
    from benchmarks.load.rates import Found
    from benchmarks.load.result_file import Measurement
    from benchmarks.load.run import RunResult
    from benchmarks.load.tables import Table

bench_app = typer.Typer(
    help="Put load on a server and report what it holds: throughput, latency, goodput, by adapter.",
    no_args_is_help=True,
)

EXIT_INVALID = 1  # a run that does not count, or a limit that is broken


def _run(**given: Any) -> None:
    """One load on one server, from a schedule that is known before it starts.

    Example: hotswap bench run --arrivals poisson:4 --seconds 60 --adapter-mix skewed
    """
    from benchmarks.load.bench import prepare

    settings = load_bench_settings(**given)
    bench = prepare(settings)
    with _Progress() as progress:
        progress.say(f"{bench.load.arrivals.text} on {settings.url}")
        runs = [bench.run(bench.load.arrivals.text, bench.load.arrivals, progress=progress.tick)]
    _finish("run", bench, runs)


def _sweep(rates: str | None = None, **given: Any) -> None:
    """Rates one after the other, until the server falls behind.

    Example: hotswap bench sweep --rates 1,2,4,8 --seconds 60
    """
    from benchmarks.load.bench import prepare
    from benchmarks.load.rates import parse_rates, sweep

    wanted = parse_rates(rates) if rates is not None else None
    bench = prepare(load_bench_settings(**given))
    with _Progress() as progress:
        runs = sweep(bench, wanted, progress=progress.tick, say=progress.say)
    _finish("sweep", bench, runs)


def _search(attainment: float = 0.99, most_runs: int = 8, **given: Any) -> None:
    """The highest rate at which so many requests are within the limits.

    Example: hotswap bench search --slo chat --attainment 0.99 --seconds 60
    """
    from benchmarks.load.bench import prepare
    from benchmarks.load.rates import search

    bench = prepare(load_bench_settings(**given))
    with _Progress() as progress:
        runs, found = search(
            bench, attainment=attainment, most_runs=most_runs, progress=progress.tick, say=progress.say
        )
    _finish("search", bench, runs, found)


_sweep.__annotations__["rates"] = Annotated[
    str | None,
    typer.Option(
        "--rates", help="Requests per second, with commas. Default: around what a closed loop reaches."
    ),
]
_search.__annotations__["attainment"] = Annotated[
    float, typer.Option("--attainment", help="Share of measured requests that must be within the limits.")
]
_search.__annotations__["most_runs"] = Annotated[
    int, typer.Option("--most-runs", min=1, max=50, help="Runs after the first, at most.")
]
for _name, _verb in (("run", _run), ("sweep", _sweep), ("search", _search)):
    bench_app.command(_name)(with_options(BenchSettings, env_prefix=BENCH_PREFIX)(_verb))


@bench_app.command("compare")
def compare_results(
    first: Annotated[Path, typer.Argument(help="result.json, or its folder: what was.")],
    second: Annotated[Path, typer.Argument(help="result.json, or its folder: what is now.")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-on", help="METRIC:CHANGE that makes the exit code 1, e.g. goodput:-5%. Repeatable."
        ),
    ] = None,
) -> None:
    """Two results side by side.

    Example: hotswap bench compare before after --fail-on goodput:-5% --fail-on ttft_p99:+10%
    """
    from benchmarks.load.comparison import broken, compare, parse_limit, reasons_against
    from benchmarks.load.result_file import read_measurement
    from benchmarks.load.tables import comparison_table

    limits = [parse_limit(text) for text in fail_on or ()]
    one, other = read_measurement(first), read_measurement(second)
    differences = compare(one, other)
    for reason in reasons_against(one, other):
        _say(f"careful: {reason}")
    _show(comparison_table(differences))
    beyond = broken(limits, differences)
    for each in beyond:
        change = "is missing" if each.change is None else f"changed by {each.change:+.1%}"
        _say(f"{each.metric} of {each.run} {change}, which is worse than it may be")
    if beyond:
        raise typer.Exit(EXIT_INVALID)


def _finish(mode: str, bench: Bench, runs: Sequence[RunResult], found: Found | None = None) -> None:
    from dataclasses import asdict

    from benchmarks.load.markdown import conclusion_of, render_markdown
    from benchmarks.load.page import render_page
    from benchmarks.load.result_file import measurement_of, write_measurement
    from benchmarks.load.tables import findings_of, report_tables
    from benchmarks.surroundings import read_surroundings

    measurement: Measurement = measurement_of(
        mode,
        runs,
        command=_command_line(),
        target=bench.target,
        load=bench.settings.shown(),
        slo=bench.slo,
        surroundings=read_surroundings(),
        conclusion=asdict(found) if found is not None else None,
    )
    out = bench.settings.out
    write_measurement(measurement, runs, out)
    (out / "report.md").write_text(render_markdown(measurement), encoding="utf-8")
    (out / "report.html").write_text(render_page(measurement, runs), encoding="utf-8")
    for table in report_tables(measurement)[:2]:
        _show(table)
    for line in conclusion_of(measurement):
        _say(line.replace("**", ""))
    for invalid, text in findings_of(measurement):
        _say(f"{'INVALID: ' if invalid else ''}{text}")
    _say(f"{out}/report.html, report.md, result.json, requests.jsonl")
    if mode == "run" and not runs[0].valid:
        raise typer.Exit(EXIT_INVALID)


def _command_line() -> str:
    """What was typed, without a key."""
    shown: list[str] = []
    hidden = False
    for part in sys.argv[1:]:
        shown.append("..." if hidden else "--key=..." if part.startswith("--key=") else part)
        hidden = part == "--key"
    return shlex.join(["hotswap", *shown])


class _Progress:
    """One line that is written over while load runs; where nobody watches, a line every ten seconds."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status: Any = None
        self._said = 0.0

    def __enter__(self) -> _Progress:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._status is not None:
            self._status.__exit__(*ended)

    def say(self, text: str) -> None:
        """What happens now."""
        self._said = 0.0
        self._console.print(text, highlight=False, markup=False)

    def tick(self, now: dict[str, float]) -> None:
        """Once a second."""
        text = (
            f"{now['seconds']:.0f} s: {now['sent']:.0f} sent, {now['running']:.0f} under way, "
            f"{now['ok_per_second']:.1f} answers/s, {now['tokens_per_second']:.0f} tok/s, "
            f"{now['rejected']:.0f} rejected, {now['failed']:.0f} failed"
        )
        if self._status is not None:
            self._status.update(text)
        elif now["seconds"] - self._said >= 10.0:
            self._said = now["seconds"]
            self._console.print(text, highlight=False, markup=False)


def _show(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(table.headings):
        shown.add_column(heading, justify="left" if place == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    console = Console(markup=False)
    console.print(shown)
    for note in table.notes:
        console.print(note)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
