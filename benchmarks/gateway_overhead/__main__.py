"""The command line. Exit codes: 0 measured, 1 could not be measured or requests failed, 2 wrong usage."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.closed_loop.block import Block
from benchmarks.closed_loop.entry import run_app
from benchmarks.closed_loop.errors import PlanError
from benchmarks.closed_loop.measurement import Measurement
from benchmarks.closed_loop.measurement import Progress as Told
from benchmarks.closed_loop.part import Part
from benchmarks.closed_loop.plan import Plan
from benchmarks.gateway_overhead.contenders import defaults_part, equal_part, running_part
from benchmarks.gateway_overhead.report import markdown, print_report
from benchmarks.gateway_overhead.result import PartResult, RunResult
from benchmarks.surroundings import CHECKOUT, read_surroundings

PARTS = ("equal", "defaults", "tutorial")
QUICK_CONCURRENCY, QUICK_BLOCKS, QUICK_TOKENS = (1, 8), 2, 16

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    concurrency: Annotated[str, typer.Option(help="Requests under way at once, one cell each.")] = "1,8,32",
    blocks: Annotated[int, typer.Option(help="Blocks per cell with equal settings, in turns.")] = 5,
    restarts: Annotated[int, typer.Option(help="Starts of each server in the other parts.")] = 2,
    requests: Annotated[int, typer.Option(help="Measured requests per block, at least.")] = 12,
    max_tokens: Annotated[int, typer.Option(help="Length of every answer, in tokens.")] = 32,
    parts: Annotated[
        str,
        typer.Option(help="equal: same engine settings. defaults: out of the box. tutorial: added to it."),
    ] = ",".join(PARTS),
    quick: Annotated[
        bool, typer.Option("--quick", help="Two or three minutes: equal settings, c=1 and 8, 2 blocks.")
    ] = False,
    base: Annotated[str, typer.Option(help="Base model, as for `hotswap serve`.")] = "default",
    kv_cache_gib: Annotated[
        float, typer.Option(help="KV cache of each server with equal settings, in GiB, on a CPU.")
    ] = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results. Default: build/bench/gateway_overhead/TIME.")
    ] = None,
    gateway_url: Annotated[str | None, typer.Option(help="Measure a gateway that is running.")] = None,
    stock_url: Annotated[str | None, typer.Option(help="... against this running OpenAI server.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model on both running servers.")] = None,
) -> None:
    """Measure what the gateway costs beside the stock vLLM server.

    Example: python -m benchmarks.gateway_overhead --concurrency 1,8,32 --blocks 5
    """
    console = Console(stderr=True)
    started = datetime.now(UTC)
    numbers, chosen = _numbers(concurrency), _names(parts)
    if quick:
        numbers, blocks, max_tokens, chosen = QUICK_CONCURRENCY, QUICK_BLOCKS, QUICK_TOKENS, ("equal",)
        requests = min(requests, 6)
    plan = Plan(concurrency=numbers, rounds=blocks, requests=requests, max_tokens=max_tokens)
    apart = Plan(concurrency=numbers, rounds=restarts, requests=min(requests, 6), max_tokens=max_tokens)
    plan.check()
    apart.check()
    surroundings = read_surroundings()
    folder = out or CHECKOUT / "build" / "bench" / "gateway_overhead" / f"{started:%Y%m%dT%H%M%SZ}"
    folder.mkdir(parents=True, exist_ok=True)
    if gateway_url or stock_url or model:
        if not (gateway_url and stock_url and model):
            raise PlanError("running servers need all of --gateway-url, --stock-url and --model")
        todo = [(running_part(gateway_url, stock_url, model), plan)]
    else:
        todo = _todo(chosen, base, kv_cache_gib, plan, apart)
    command = shlex.join(["python", "-m", "benchmarks.gateway_overhead", *sys.argv[1:]])
    run = RunResult(started, command, surroundings, [])
    for part, size in todo:
        run = replace(run, parts=[*run.parts, PartResult(part, size, _run(part, size, folder, console))])
        # After each part: one that cannot be measured takes nothing from those before it.
        run.write(folder / "results.json")
        (folder / "log-entry.md").write_text(markdown(run), encoding="utf-8")
        console.print(f"results.json, log-entry.md and every request as JSONL: {folder}", soft_wrap=True)
    print_report(run, Console(width=max(170, console.width)))
    if run.failed_requests:
        console.print(f"[red]{run.failed_requests} measured requests failed[/]")
        raise typer.Exit(1)


def _todo(
    chosen: tuple[str, ...], base: str, kv_cache_gib: float, plan: Plan, apart: Plan
) -> list[tuple[Part, Plan]]:
    from serve.settings import load_settings

    home = load_settings().home
    todo = []
    if "equal" in chosen:
        todo.append((equal_part(base, home, kv_cache_gib), plan))
    if "defaults" in chosen or "tutorial" in chosen:
        todo.append((defaults_part(base, home, tutorial="tutorial" in chosen), apart))
    return todo


def _run(part: Part, plan: Plan, folder: Path, console: Console) -> list[Block]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(part.name)

        def block_done(block: Block) -> None:
            rate = f"{block.output_tok_s:.1f} tok/s" if block.output_tok_s is not None else "no rate"
            where = f"{part.name}: round {block.round + 1} c={block.concurrency}"
            bar.console.print(f"{where} {block.contender}: {rate}, {block.answered}/{block.attempted}")
            bar.advance(task)

        measurement = Measurement(part, plan, out=folder, progress=Told(bar.console.print, block_done))
        bar.update(task, total=measurement.num_blocks)
        return measurement.run()


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise PlanError(f"--concurrency {text!r} is not a list of numbers; write e.g. 1,8,32") from None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        raise PlanError(f"--parts {text!r} names no such part: choose from {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    run_app(app, "gateway_overhead")
