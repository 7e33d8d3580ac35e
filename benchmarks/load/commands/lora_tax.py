"""`hotswap bench lora-tax`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from benchmarks.load.commands.console import Progress, say
from benchmarks.load.commands.finish import EXIT_INVALID, finish
from benchmarks.load.commands.options import ArmRounds, Concurrency, OwnBase, OwnServeFlags
from benchmarks.load.settings import load_bench_settings


def lora_tax(
    serve_flags: OwnServeFlags = None,
    counts: Annotated[
        str, typer.Option("--counts", help="Adapters that the traffic is mixed over, with commas.")
    ] = "1,4,16,64",
    concurrency: Concurrency = "1,32",
    rounds: ArmRounds = 5,
    fail_below: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-below",
            help="ADAPTERS@CONCURRENCY:RATIO, e.g. 4@32:0.90: the exit code is 1 when the median ratio to the "
            "base's tok/s is lower. Repeatable.",
        ),
    ] = None,
    base: OwnBase = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="Its number format.")] = None,
    ranks: Annotated[
        str | None, typer.Option("--ranks", help="Ranks of its adapters, dealt in turn. Default: 8.")
    ] = None,
    **given: Any,
) -> None:
    """What adapters cost: the base, and traffic mixed over 1, 4, 16, 64 adapters, in turns on one server.

    Without --url (or HOTSWAP_BENCH_URL) a gateway with random adapters is started for it.

    Example: hotswap bench lora-tax --counts 1,4,32 --concurrency 32 --seconds 15 -- --dtype bfloat16
    """
    from benchmarks.load.bench import check_options, prepare
    from benchmarks.load.lora_tax import below, parse_plan, parse_tax_limit, serving, tax_arms
    from benchmarks.load.rounds import conclusion_of_turns, duration_line, take_turns

    settings = load_bench_settings(**given)
    plan = parse_plan(counts, concurrency)
    limits = [parse_tax_limit(text, plan) for text in fail_below or ()]
    settings = settings.model_copy(update={"arrivals": f"closed:{plan.concurrency[0]}"})
    check_options(settings)
    with (
        Progress() as progress,
        serving(
            settings, plan, base=base, dtype=dtype, ranks=ranks, flags=serve_flags or (), say=progress.say
        ) as (settings, note),
    ):
        bench = prepare(settings)
        arms = tax_arms(bench, plan)
        progress.say(duration_line(settings, rounds=rounds, runs_a_round=len(arms)))
        turns = take_turns(arms, rounds=rounds, progress=progress.tick, say=progress.say)
    conclusion = {**conclusion_of_turns(turns, arms, arms[0].name), "notes": [note]}
    runs = [turn.run for turn in turns]
    finish("lora-tax", bench.shown_as(plan.arrivals_text), runs, conclusion)
    slow = below(limits, conclusion, plan)
    for line in slow:
        say(line)
    if slow or not all(run.valid for run in runs):
        raise typer.Exit(EXIT_INVALID)
