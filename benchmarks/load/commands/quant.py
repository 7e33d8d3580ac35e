"""`hotswap bench quant`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from benchmarks.load.commands.console import Progress
from benchmarks.load.commands.finish import EXIT_INVALID, finish
from benchmarks.load.commands.options import ArmRounds, Concurrency
from benchmarks.load.settings import load_bench_settings


def quant(
    bases: Annotated[
        str,
        typer.Option(
            "--bases",
            help="Bases with commas, as for `hotswap serve`, each with :DTYPE if wanted; the first is what the "
            "others are set against. E.g. default,NAME or default:float32,default:bfloat16.",
        ),
    ],
    serve_flags: Annotated[
        list[str] | None,
        typer.Argument(help="After --: flags of `hotswap serve` for all gateways.", metavar="FLAGS"),
    ] = None,
    concurrency: Concurrency = "1,8,32",
    rounds: ArmRounds = 3,
    search: Annotated[
        bool,
        typer.Option("--search/--no-search", help="Look for the highest rate within --slo of each base."),
    ] = True,
    attainment: Annotated[
        float, typer.Option("--attainment", help="Share of requests that must be within the limits.")
    ] = 0.99,
    most_runs: Annotated[
        int, typer.Option("--most-runs", min=1, max=50, help="Runs of each search after the first, at most.")
    ] = 6,
    adapter_folders: Annotated[
        str | None,
        typer.Option(
            "--adapter-folders",
            help="Adapters (folders or published names) that all bases serve, with commas.",
        ),
    ] = None,
    kv_cache_gib: Annotated[
        float, typer.Option("--kv-cache-gib", min=0.01, help="KV cache of each gateway on CPU, in GiB.")
    ] = 1.0,
    apart: Annotated[
        bool | None,
        typer.Option(
            "--apart/--together",
            help="One gateway up at a time. Default: on a GPU, or where memory is short.",
        ),
    ] = None,
    **given: Any,
) -> None:
    """Bases side by side: a gateway for each, loads in turns, and the highest rate that each holds within the SLO.

    Example: hotswap bench quant --bases default,smollm2-135m-instruct-gptq-w4a16 --slo content
    """
    import tempfile
    from pathlib import Path

    from bases.settings import BasesSettings
    from benchmarks.load.bench import check_options
    from benchmarks.load.numbers_text import whole_numbers
    from benchmarks.load.quant import QuantPlan, conclusion_of, measure_bases
    from benchmarks.load.quant_bases import find_bases, parse_bases
    from benchmarks.load.quant_fleet import Fleet, find_adapters
    from benchmarks.load.rates import check_attainment
    from benchmarks.load.workload.arrivals import MAX_WORKERS
    from benchmarks.sigterm import ending_on_sigterm
    from serve.engine.vllm.machine import read_machine

    settings = load_bench_settings(**given)
    plan = QuantPlan(
        whole_numbers(concurrency, option="--concurrency", most=MAX_WORKERS),
        rounds,
        check_attainment(attainment),
        most_runs if search else 0,
    )
    wanted = parse_bases(bases)
    settings = settings.model_copy(update={"arrivals": f"closed:{plan.concurrency[0]}"})
    check_options(settings)
    with (
        Progress() as progress,
        ending_on_sigterm(),
        tempfile.TemporaryDirectory(prefix="hotswap-bench-") as folder,
    ):
        fleet = Fleet(
            find_bases(wanted, Path(folder)),
            adapters=find_adapters(adapter_folders, BasesSettings().home),
            kv_cache_gib=kv_cache_gib,
            flags=serve_flags or (),
            folder=Path(folder),
            say=progress.say,
        )
        result = measure_bases(
            fleet,
            settings,
            plan,
            apart=read_machine().device == "cuda" if apart is None else apart,
            progress=progress.tick,
            say=progress.say,
        )
        conclusion = conclusion_of(fleet, result, plan)
    first = result.benches[fleet.bases[0].name]
    finish("quant", first.shown_as(plan.arrivals_text), result.runs, conclusion)
    if not all(turn.run.valid for turn in result.turns):
        raise typer.Exit(EXIT_INVALID)
