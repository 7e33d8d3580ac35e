"""The command line. Exit codes: 0 measured, 1 could not be measured or something failed, 2 wrong usage."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from benchmarks.adapter_churn.background import Background
from benchmarks.adapter_churn.plan import Plan
from benchmarks.adapter_churn.report import Outcome, markdown
from benchmarks.closed_loop import run_closed_loop
from benchmarks.entry import command_line, result_folder, run_app
from benchmarks.load.own_gateway import own_gateway
from benchmarks.load.verbs import Admin
from benchmarks.server import Server
from benchmarks.surroundings import read_surroundings
from benchmarks.versions import ATTENTION

_TELL_SECONDS = 60.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    registered: Annotated[int, typer.Option(help="Adapters that are registered.")] = 1000,
    active: Annotated[int, typer.Option(help="... and asked by clients.")] = 64,
    minutes: Annotated[float, typer.Option(help="How long load and churn go on.")] = 30.0,
    concurrency: Annotated[int, typer.Option(help="Requests under way at once.")] = 8,
    churn_seconds: Annotated[
        float, typer.Option(help="From one load, unload or replacement to the next.")
    ] = 1.0,
    list_seconds: Annotated[float, typer.Option(help="From one listing to the next.")] = 2.0,
    sample_seconds: Annotated[float, typer.Option(help="From one look at the processes to the next.")] = 5.0,
    max_tokens: Annotated[int, typer.Option(help="Length of every answer.")] = 8,
    prompt_words: Annotated[int, typer.Option(help="Length of every prompt, in words.")] = 16,
    rank: Annotated[int, typer.Option(help="Rank of the adapters, which adapt q_proj and v_proj.")] = 4,
    base: Annotated[
        str, typer.Option(help="Base model, as for `hotswap serve`; 'tiny': a random one; 'scripted': none.")
    ] = "default",
    max_cpu_loras: Annotated[int, typer.Option(help="Adapters that the engine keeps in memory.")] = 128,
    kv_cache_gib: Annotated[
        float,
        typer.Option(help="KV cache on a CPU: small, so that it is soon full and memory can be judged."),
    ] = 0.5,
    quick: Annotated[
        bool, typer.Option("--quick", help="100 adapters of the tiny base for 2 minutes.")
    ] = False,
    serve_arg: Annotated[list[str] | None, typer.Option(help="More flags of `hotswap serve`.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results. Default: build/bench/adapter_churn/TIME.")
    ] = None,
) -> None:
    """Hold many adapters, ask some, and let others come, go and be replaced.

    Example: python -m benchmarks.adapter_churn --minutes 30
    """
    console = Console(stderr=True)
    started = datetime.now(UTC)
    if quick:
        registered, active, minutes, base = min(registered, 100), min(active, 32), 2.0, "tiny"
    plan = Plan(
        registered=registered,
        active=active,
        minutes=minutes,
        concurrency=concurrency,
        churn_seconds=churn_seconds,
        list_seconds=list_seconds,
        sample_seconds=sample_seconds,
        max_tokens=max_tokens,
        prompt_words=prompt_words,
        rank=rank,
    )
    plan.check()
    surroundings = read_surroundings()
    folder = result_folder("adapter_churn", started, out)
    flags = [f"--max-cpu-loras={max_cpu_loras}", f"--kv-cache-gib={kv_cache_gib:g}", *(serve_arg or ())]
    with own_gateway(
        base,
        ranks=[plan.rank],
        targets=ATTENTION,
        more_flags=flags,
        folder=folder,
        ready_seconds=plan.ready_seconds,
        say=console.print,
    ) as gateway:
        for number, name in enumerate(track(plan.names, "making adapters", console=console)):
            gateway.maker.make(name, seed=number)
        spares = [gateway.maker.make(f"spare-{n}", seed=1_000_000 + n) for n in range(plan.spares)]
        with Admin(gateway.url, time.monotonic()) as registering:
            for name in track(plan.names, "registering", console=console):
                registering.load(name, name)
        outcome = _run(gateway.server, plan, spares, folder, registering, console)
    engine = f"Base {gateway.base.name}, {max_cpu_loras} adapters in the engine's memory at most"
    command = command_line("adapter_churn")
    result = {
        "started": started.isoformat(),
        "command": command,
        "plan": asdict(plan),
        "surroundings": asdict(surroundings),
        "registration": [asdict(verb) for verb in outcome.registration],
        "verbs": [asdict(verb) for verb in outcome.verbs],
        "looks": [asdict(one) for one in outcome.looks],
    }
    (folder / "results.json").write_text(json.dumps(result), encoding="utf-8")
    entry = markdown(
        outcome, plan, engine=engine, started=started, command=command, surroundings=surroundings
    )
    (folder / "log-entry.md").write_text(entry, encoding="utf-8")
    print(entry)
    console.print(f"results.json, log-entry.md and every request as JSONL: {folder}", soft_wrap=True)
    if outcome.errors:
        raise typer.Exit(1)


def _run(
    server: Server, plan: Plan, spares: list[str], folder: Path, registering: Admin, console: Console
) -> Outcome:
    background = Background(server, plan, spares)
    told = 0.0

    def tell(now: dict[str, float]) -> None:
        nonlocal told
        if background.looks and now["seconds"] - told >= _TELL_SECONDS:
            told = now["seconds"]
            console.print(f"{told / 60:.0f} min: {background.summary}")

    records = run_closed_loop(
        server.url,
        plan,
        60.0 * plan.minutes,
        folder / "requests.jsonl",
        beside=background.running,
        progress=tell,
    )
    return Outcome(registering.done, [*background.changes, *background.listings], background.looks, records)


if __name__ == "__main__":
    run_app(app, "adapter_churn")
