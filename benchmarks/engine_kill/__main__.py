"""The command line. Exit codes: 0 measured, 1 could not be measured or not as promised, 2 wrong usage."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.engine_kill.plan import Plan
from benchmarks.engine_kill.report import markdown, verdicts
from benchmarks.engine_kill.trial import Trial, run_trial
from benchmarks.entry import command_line, result_folder, run_app
from benchmarks.load.own_gateway import own_gateway
from benchmarks.surroundings import read_surroundings

# Longer than any stop here: a stopped engine is to go on, not to be replaced.
HANG_SECONDS = 600.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    kills: Annotated[int, typer.Option(help="How often the engine's process is killed.")] = 3,
    stop_seconds: Annotated[float, typer.Option(help="How long it is stopped, once; 0: not.")] = 60.0,
    stall_seconds: Annotated[float, typer.Option(help="--engine-stall-seconds of the gateway.")] = 15.0,
    adapters: Annotated[int, typer.Option(help="Adapters that are live.")] = 8,
    concurrency: Annotated[int, typer.Option(help="Requests under way.")] = 16,
    before_seconds: Annotated[float, typer.Option(help="Load before each signal.")] = 10.0,
    after_seconds: Annotated[float, typer.Option(help="Load after it.")] = 60.0,
    max_tokens: Annotated[int, typer.Option(help="Length of every answer.")] = 32,
    prompt_words: Annotated[int, typer.Option(help="Length of every prompt, in words.")] = 32,
    rank: Annotated[int, typer.Option(help="Rank of the adapters, which adapt all linear layers.")] = 8,
    base: Annotated[str, typer.Option(help="Base model, as for `hotswap serve`.")] = "default",
    serve_arg: Annotated[
        list[str] | None,
        typer.Option(help="More flags of `hotswap serve`, e.g. --serve-arg=--max-num-seqs=8"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results. Default: build/bench/engine_kill/TIME.")
    ] = None,
) -> None:
    """Measure what is lost, and for how long, when the engine's process is killed or stopped under load.

    Example: python -m benchmarks.engine_kill --kills 3
    """
    console = Console(stderr=True)
    started = datetime.now(UTC)
    plan = Plan(
        kills=kills,
        stop_seconds=stop_seconds,
        adapters=adapters,
        concurrency=concurrency,
        before_seconds=before_seconds,
        after_seconds=after_seconds,
        max_tokens=max_tokens,
        prompt_words=prompt_words,
        rank=rank,
    )
    plan.check()
    surroundings = read_surroundings()
    folder = result_folder("engine_kill", started, out)
    flags = (
        f"--engine-stall-seconds={stall_seconds:g}",
        f"--engine-hang-seconds={max(HANG_SECONDS, stall_seconds):g}",
        f"--engine-max-restarts={max(1, plan.kills)}",
        *(serve_arg or ()),
    )
    trials: list[Trial] = []
    with own_gateway(
        base,
        adapters=plan.adapters,
        ranks=[plan.rank],
        more_flags=flags,
        folder=folder,
        ready_seconds=plan.ready_seconds,
        say=console.print,
    ) as gateway:
        server = gateway.server
        for number in range(plan.kills):
            trials.append(run_trial(server, plan, folder, name=f"kill-{number}"))
            console.print(f"kill {number + 1}: ready again after {trials[-1].ready_seconds:.1f} s")
        if plan.stop_seconds:
            trials.append(run_trial(server, plan, folder, name="stop", stop_seconds=plan.stop_seconds))
            console.print(f"stop: off after {trials[-1].off_seconds:.1f} s")
    result = {
        "started": started.isoformat(),
        "command": sys.argv[1:],
        "plan": asdict(plan),
        "surroundings": asdict(surroundings),
        "trials": [trial.shown() for trial in trials],
    }
    (folder / "results.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    command = command_line("engine_kill")
    entry = markdown(
        trials,
        plan,
        started=started,
        command=command,
        surroundings=surroundings,
        stall_seconds=stall_seconds,
    )
    (folder / "log-entry.md").write_text(entry, encoding="utf-8")
    print(entry)
    console.print(f"results.json, log-entry.md and every request as JSONL: {folder}", soft_wrap=True)
    if any("not met" in line for line in verdicts(trials, plan, stall_seconds=stall_seconds)):
        raise typer.Exit(1)


if __name__ == "__main__":
    run_app(app, "engine_kill")
