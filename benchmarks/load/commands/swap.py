"""`hotswap bench swap`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Any

import typer

from benchmarks.load.commands.console import Progress
from benchmarks.load.commands.finish import EXIT_INVALID, finish
from benchmarks.load.commands.options import OwnBase, OwnServeFlags
from benchmarks.load.settings import load_bench_settings

_DEFAULT_ADAPTERS = 3


def swap(
    serve_flags: OwnServeFlags = None,
    swap_every_seconds: Annotated[
        float, typer.Option("--swap-every-seconds", min=0.01, max=3600, help="From one swap to the next.")
    ] = 1.0,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=1000, help="Pairs of runs: at rest, and with swaps.")
    ] = 4,
    versions: Annotated[
        int, typer.Option("--versions", min=2, max=1000, help="Versions that take turns.")
    ] = 8,
    adapters: Annotated[
        int | None,
        typer.Option(
            "--adapters",
            min=1,
            max=10_000,
            help=f"The other adapters, in a gateway of its own. Default: {_DEFAULT_ADAPTERS}.",
        ),
    ] = None,
    ranks: Annotated[
        str, typer.Option("--ranks", help="Ranks of random adapters, dealt in turn: 8,16,64.")
    ] = "8",
    base: OwnBase = None,
    **given: Any,
) -> None:
    """What replacing one adapter again and again costs the requests on all others.

    Without --url (or HOTSWAP_BENCH_URL) a gateway with random adapters is started for it.

    Example: hotswap bench swap --rounds 4 --seconds 60 --swap-every-seconds 1
    """
    from benchmarks.load.bench import check_options, prepare
    from benchmarks.load.errors import LoadOptionError
    from benchmarks.load.guests import guests, maker_for
    from benchmarks.load.own_gateway import own_gateway, parse_ranks
    from benchmarks.load.rounds import take_turns
    from benchmarks.load.swap import SWAPPED, swap_arms, swap_conclusion

    settings = load_bench_settings(**given)
    check_options(settings)
    dealt = parse_ranks(ranks)
    if not settings.stream:
        raise LoadOptionError("--no-stream: TTFT is what swaps are judged by")
    key = settings.admin_key.get_secret_value() if settings.admin_key is not None else None
    with ExitStack() as stack:
        progress = stack.enter_context(Progress())
        if "url" in settings.model_fields_set:
            if serve_flags or base is not None or adapters is not None:
                raise LoadOptionError(
                    f"--base, --adapters and flags after -- are for a gateway that is started here, but --url "
                    f"({settings.url}) names one that runs; leave out the one or the other"
                )
            bench = prepare(settings)
            maker = maker_for(bench.target, settings)
            note = f"A gateway that ran already, at {settings.url}."
        else:
            count = adapters or _DEFAULT_ADAPTERS
            gateway = stack.enter_context(
                own_gateway(
                    base or "default",
                    adapters=count,
                    ranks=dealt,
                    more_flags=serve_flags or (),
                    say=progress.say,
                )
            )
            bench = prepare(settings.model_copy(update={"url": gateway.url}))
            maker = gateway.maker
            note = gateway.told
        brought = stack.enter_context(
            guests(bench.target.url, maker, [SWAPPED], sources=versions, ranks=dealt, admin_key=key)
        )
        bench = brought.asked_by(bench)
        arms = swap_arms(bench, brought, every_seconds=swap_every_seconds, admin_key=key)
        turns = take_turns(arms, rounds=rounds, progress=progress.tick, say=progress.say)
    conclusion = swap_conclusion(turns, arms, slo=bench.slo, every_seconds=swap_every_seconds)
    conclusion["notes"] = [
        f"Of the requests on all but {SWAPPED}, the adapter that is replaced; it is asked in both. "
        f"{versions} versions take turns.",
        note,
    ]
    runs = [turn.run for turn in turns]
    finish("swap", bench, runs, conclusion, fail_invalid=True)
    if conclusion["swap"]["failures"]:
        raise typer.Exit(EXIT_INVALID)
