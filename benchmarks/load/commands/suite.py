"""`hotswap bench suite`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from benchmarks.load.commands.console import Progress, say, show
from benchmarks.load.commands.finish import EXIT_INTERRUPTED, command_line
from benchmarks.load.settings import load_bench_settings

EXIT_PARTIAL = 1  # a part is missing that was asked for
# Settings of a load that each part has its own of, or that belong to servers that run already.
SKIPPED_SETTINGS = frozenset(
    {
        "url",
        "key",
        "arrivals",
        "seconds",
        "warmup_seconds",
        "adapters",
        "adapter_mix",
        "base_share",
        "web_port",
    }
)


def suite(
    serve_flags: Annotated[
        list[str] | None,
        typer.Argument(help="After --: flags of `hotswap serve` for the gateway.", metavar="FLAGS"),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, max=600, help="For everything, the start included.")
    ] = 9.0,
    parts: Annotated[
        str, typer.Option("--parts", help="all, or some of closed,open,mix,swap,overload,idle.")
    ] = "all",
    base: Annotated[
        str, typer.Option("--base", help="As for `hotswap serve`, tiny or scripted.")
    ] = "default",
    adapters: Annotated[int, typer.Option("--adapters", min=2, max=256, help="Random adapters.")] = 8,
    ranks: Annotated[str, typer.Option("--ranks", help="Their ranks, dealt in turn.")] = "8,16,32,64",
    concurrency: Annotated[
        str, typer.Option("--concurrency", help="Requests under way at once, of the closed loops.")
    ] = "1,8,32",
    capacity: Annotated[
        float | None,
        typer.Option(
            "--capacity",
            min=0.001,
            help="Requests per second that the rates are multiples of. Default: what the last closed loop reaches; "
            "give that of the first result when two are to be compared.",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Everything in a few minutes: base and adapters, rates, mixes, swaps, overload, idle cost; one report.

    Example: hotswap bench suite --minutes 9 --out suite
    """
    import time

    from benchmarks.load.suite.budget import Budget
    from benchmarks.load.suite.performance import Wish, perform
    from benchmarks.load.suite.report import write_report
    from benchmarks.load.suite.tables import headline_table, missing_lines

    settings = load_bench_settings(**given)
    wish = Wish.parse(
        settings,
        minutes=minutes,
        parts=parts,
        base=base,
        adapters=adapters,
        ranks=ranks,
        concurrency=concurrency,
        capacity_req_s=capacity,
        flags=serve_flags or (),
    )
    budget = Budget(minutes)
    place = 0

    def where() -> str:
        left = time.strftime("%M:%S", time.gmtime(budget.left_seconds))
        return f"[{place} of {len(wish.parts)}, {left} left] "

    def begin(number: int) -> None:
        nonlocal place
        place = number + 1
        progress.say(wish.parts[number].title)

    with Progress(where) as progress:
        result, runs, interrupted = perform(
            wish, budget, command=command_line(), progress=progress.tick, say=progress.say, begin=begin
        )
    write_report(result, runs, settings.out)
    show(headline_table(result))
    for line in missing_lines(result):
        say(line)
    say(f"{settings.out}/report.html, report.md, result.json, requests.jsonl, plots/*.png")
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.partial:
        raise typer.Exit(EXIT_PARTIAL)
