"""`hotswap bench run`, `sweep` and `search`: one load, or one after the other at several rates."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from benchmarks.load.commands.console import Progress
from benchmarks.load.commands.finish import finish
from benchmarks.load.settings import load_bench_settings


def run(**given: Any) -> None:
    """One load on one server, from a schedule that is known before it starts.

    Example: hotswap bench run --arrivals poisson:4 --seconds 60 --adapter-mix skewed
    """
    from benchmarks.load.bench import prepare
    from benchmarks.load.guests import churned

    settings = load_bench_settings(**given)
    with Progress() as progress, churned(prepare(settings)) as bench:
        progress.say(f"{bench.load.arrivals.text} on {settings.url}")
        runs = [bench.run(bench.load.arrivals.text, bench.load.arrivals, progress=progress.tick)]
    finish("run", bench, runs, fail_invalid=True)


def sweep(
    rates: Annotated[
        str | None,
        typer.Option(
            "--rates", help="Requests per second, with commas. Default: around what a closed loop reaches."
        ),
    ] = None,
    times_capacity: Annotated[
        str | None,
        typer.Option(
            "--times-capacity",
            help="Multiples of what a closed loop reaches instead, e.g. 0.5,1,2; all of them are measured.",
        ),
    ] = None,
    capacity_workers: Annotated[
        str | None,
        typer.Option(
            "--capacity-workers",
            help="Closed loops that look for that capacity, with commas. Default: that of --arrivals, or 32.",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Rates one after the other, until the server falls behind; or multiples of its capacity.

    Example: hotswap bench sweep --rates 1,2,4,8 --seconds 60
    """
    from benchmarks.load.bench import prepare
    from benchmarks.load.errors import LoadOptionError
    from benchmarks.load.guests import churned
    from benchmarks.load.overload import beyond_capacity, closed_loops, parse_factors
    from benchmarks.load.rates import parse_rates
    from benchmarks.load.rates import sweep as sweep_rates

    if times_capacity is not None:
        if rates is not None:
            raise LoadOptionError("--rates and --times-capacity both say which rates; give one of them")
        factors = parse_factors(times_capacity)
        with Progress() as progress, churned(prepare(load_bench_settings(**given))) as bench:
            loops = closed_loops(capacity_workers, bench.load.arrivals)
            runs, conclusion = beyond_capacity(
                bench, loops, factors, progress=progress.tick, say=progress.say
            )
        finish("sweep", bench, runs, conclusion)
        return
    wanted = parse_rates(rates) if rates is not None else None
    with Progress() as progress, churned(prepare(load_bench_settings(**given))) as bench:
        runs = sweep_rates(bench, wanted, progress=progress.tick, say=progress.say)
    finish("sweep", bench, runs)


def search(
    attainment: Annotated[
        float,
        typer.Option("--attainment", help="Share of measured requests that must be within the limits."),
    ] = 0.99,
    most_runs: Annotated[
        int, typer.Option("--most-runs", min=1, max=50, help="Runs after the first, at most.")
    ] = 8,
    **given: Any,
) -> None:
    """The highest rate at which so many requests are within the limits.

    Example: hotswap bench search --slo chat --attainment 0.99 --seconds 60
    """
    from dataclasses import asdict

    from benchmarks.load.bench import prepare
    from benchmarks.load.guests import churned
    from benchmarks.load.rates import search as search_rate

    with Progress() as progress, churned(prepare(load_bench_settings(**given))) as bench:
        runs, found = search_rate(
            bench, attainment=attainment, most_runs=most_runs, progress=progress.tick, say=progress.say
        )
    finish("search", bench, runs, asdict(found))
