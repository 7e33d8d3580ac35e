"""The command line. Exit codes: 0 measured, 1 could not be measured or something failed, 2 wrong usage."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from benchmarks.closed_loop.entry import run_app
from benchmarks.closed_loop.server import Server, running
from benchmarks.steady.client import Order
from benchmarks.steady.gateway import find_base, gateway_spec, load_adapter
from benchmarks.steady.load import START_SECONDS, Load
from benchmarks.steady.machine import MachineTime
from benchmarks.steady.versions import ALL_LINEAR, VersionMaker
from benchmarks.surroundings import CHECKOUT, read_surroundings
from benchmarks.swap_impact.block import Block, make_block
from benchmarks.swap_impact.plan import SWAPPED, Plan
from benchmarks.swap_impact.report import markdown
from benchmarks.swap_impact.swaps import Swap, Swaps

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    pairs: Annotated[int, typer.Option(help="Pairs of blocks: at rest, and with swaps.")] = 4,
    block_seconds: Annotated[float, typer.Option(help="Length of a block.")] = 60.0,
    concurrency: Annotated[int, typer.Option(help="Requests under way on the other adapters.")] = 6,
    swapped_concurrency: Annotated[int, typer.Option(help="... and on the one that is replaced.")] = 1,
    bystanders: Annotated[int, typer.Option(help="The other adapters.")] = 3,
    versions: Annotated[int, typer.Option(help="Versions that take turns.")] = 8,
    interval_seconds: Annotated[float, typer.Option(help="From one swap to the next.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Length of every answer.")] = 16,
    prompt_words: Annotated[int, typer.Option(help="Length of every prompt, in words.")] = 32,
    rank: Annotated[int, typer.Option(help="Rank of the adapters, which adapt all linear layers.")] = 8,
    quick: Annotated[bool, typer.Option("--quick", help="Two pairs of 15 s.")] = False,
    base: Annotated[
        str, typer.Option(help="Base model, as for `hotswap serve`; 'tiny': a random one; 'scripted': none.")
    ] = "default",
    serve_arg: Annotated[
        list[str] | None, typer.Option(help="More flags of `hotswap serve`, e.g. --serve-arg=--max-loras=16")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results. Default: build/bench/swap_impact/TIME.")
    ] = None,
) -> None:
    """Measure what replacing one adapter every second costs the requests on others.

    Example: python -m benchmarks.swap_impact --pairs 4
    """
    console = Console(stderr=True)
    started = datetime.now(UTC)
    plan = Plan(
        pairs=2 if quick else pairs,
        block_seconds=15.0 if quick else block_seconds,
        concurrency=concurrency,
        swapped_concurrency=swapped_concurrency,
        bystanders=bystanders,
        versions=versions,
        interval_seconds=interval_seconds,
        max_tokens=max_tokens,
        prompt_words=prompt_words,
        rank=rank,
    )
    plan.check()
    surroundings = read_surroundings()
    folder = out or CHECKOUT / "build" / "bench" / "swap_impact" / f"{started:%Y%m%dT%H%M%SZ}"
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    served = find_base(base, folder)
    maker = VersionMaker(home / "adapters", served.linear_modules, rank=plan.rank, targets=ALL_LINEAR)
    console.print(f"making {plan.bystanders + plan.versions} adapters and starting the gateway")
    sources = [maker.make(f"version-{number}", seed=1000 + number) for number in range(plan.versions)]
    others = [maker.make(name, seed=number) for number, name in enumerate(plan.names)]
    with running(
        [gateway_spec(home, served, serve_arg or ())], logs=folder, ready_seconds=plan.ready_seconds
    ) as up:
        server = up["gateway"]
        with httpx.Client(base_url=server.url, timeout=300.0) as client:
            for name, source in [*zip(plan.names, others, strict=True), (SWAPPED, sources[-1])]:
                load_adapter(client, name, source)
        blocks = []
        with Load(_order(server, plan, "warm-up", 10.0), folder, "requests-warm-up") as load:
            load.wait()  # nobody counts it: caches and kernels get their first use
        for pair, swapping in plan.order:
            block = _block(server, plan, pair, swapping, sources, folder)
            blocks.append(block)
            console.print(
                f"pair {pair + 1} {'with swaps' if swapping else 'at rest'}: TTFT p50 "
                f"{1000 * block.figure('TTFT p50'):.0f} ms, p99 {1000 * block.figure('TTFT p99'):.0f} ms, "
                f"{block.figure('tok/s'):.1f} tok/s, {len(block.swaps)} swaps, {block.failed} failures"
            )
    result = {
        "started": started.isoformat(),
        "command": sys.argv[1:],
        "plan": asdict(plan),
        "surroundings": asdict(surroundings),
        "blocks": [asdict(block) for block in blocks],
    }
    (folder / "results.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    command = shlex.join(["python", "-m", "benchmarks.swap_impact", *sys.argv[1:]])
    entry = markdown(blocks, plan, started=started, command=command, surroundings=surroundings)
    (folder / "log-entry.md").write_text(entry, encoding="utf-8")
    print(entry)
    console.print(f"results.json, log-entry.md and every request as JSONL: {folder}", soft_wrap=True)
    if any(block.failed for block in blocks):
        raise typer.Exit(1)


def _order(server: Server, plan: Plan, salt: str, seconds: float) -> Order:
    return Order(
        url=server.url,
        lanes=plan.lanes,
        start_at_seconds=time.monotonic() + START_SECONDS,
        seconds=seconds,
        prompt_words=plan.prompt_words,
        max_tokens=plan.max_tokens,
        seed=f"{plan.seed}/{salt}",
        request_timeout_seconds=plan.request_timeout_seconds,
    )


def _block(server: Server, plan: Plan, pair: int, swapping: bool, sources: list[str], folder: Path) -> Block:
    warm_up, seconds = plan.warm_up_seconds, plan.block_seconds
    order = _order(server, plan, f"{pair}/{swapping}", warm_up + seconds)
    swaps: list[Swap] = []
    with Load(order, folder, f"requests-{pair}-{'swaps' if swapping else 'rest'}") as load:
        own = [os.getpid(), load.process_id, *server.process_ids()]
        before = MachineTime.read(time.monotonic(), own)
        if swapping:
            paced = Swaps(
                server.url,
                SWAPPED,
                sources,
                interval_seconds=plan.interval_seconds,
                start_at_seconds=order.start_at_seconds,
            )
            with paced:
                time.sleep(max(0.0, order.seconds - load.now_seconds))
            swaps = paced.done
        else:
            time.sleep(max(0.0, order.seconds - load.now_seconds))
        share = before.foreign_share(MachineTime.read(time.monotonic(), own))
        records = load.wait()
    return make_block(
        records,
        swaps,
        pair=pair,
        swapping=swapping,
        warm_up_seconds=warm_up,
        seconds=seconds,
        foreign_cpu_share=share,
    )


if __name__ == "__main__":
    run_app(app, "swap_impact")
