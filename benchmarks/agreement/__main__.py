"""The command line. Exit codes: 0 they agree, 1 they do not or nothing could be measured, 2 wrong usage."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.agreement.aiperf import AIPERF
from benchmarks.agreement.comparison import measure as measure_pairs
from benchmarks.agreement.comparison import verdicts
from benchmarks.agreement.guidellm import GUIDELLM
from benchmarks.agreement.known_server import known_server
from benchmarks.agreement.report import markdown
from benchmarks.agreement.workload import Workload
from benchmarks.entry import command_line, result_folder, run_app
from benchmarks.errors import PlanError
from benchmarks.gateway import find_base, gateway_spec
from benchmarks.load.client.target import read_target
from benchmarks.load.workload.arrivals import Arrivals, parse_arrivals
from benchmarks.server import running
from benchmarks.surroundings import read_surroundings
from benchmarks.tool_environment import tool_environment

TOOLS = {tool.name: tool for tool in (GUIDELLM, AIPERF)}
_READY_SECONDS = 900.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    tool: Annotated[str, typer.Option(help=f"Outside tool: {', '.join(TOOLS)}.")] = "guidellm",
    base: Annotated[
        str,
        typer.Option(help="scripted: known delays and no model; or a base, as for `hotswap serve`."),
    ] = "scripted",
    arrivals: Annotated[
        str, typer.Option(help="closed:WORKERS, or constant:RATE in requests per second.")
    ] = "closed:4",
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of each run.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    prompt_tokens: Annotated[int, typer.Option(min=8, help="Length of prompts.")] = 64,
    answer_tokens: Annotated[int, typer.Option(min=2, help="Length of answers.")] = 32,
    ttft_seconds: Annotated[float, typer.Option(min=0.0, help="Of the scripted server.")] = 0.2,
    tpot_seconds: Annotated[float, typer.Option(min=0.0, help="Of the scripted server.")] = 0.03,
    kv_cache_gib: Annotated[float, typer.Option(min=0.1, help="KV cache of a base on a CPU, in GiB.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of prompts on both sides.")] = 1,
    tools_home: Annotated[
        Path | None, typer.Option(help="Where tools are installed. Default: benchmark-tools in HOTSWAP_HOME.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results. Default: build/bench/agreement/TIME.")
    ] = None,
) -> None:
    """Measure one server with `hotswap bench run` and with an outside tool, in turns.

    The tool is installed into a virtual environment of its own, once.

    Example: python -m benchmarks.agreement --tool guidellm --base default --arrivals closed:2
    """
    from bases.resolve import resolve_base
    from serve.settings import load_settings

    console = Console(stderr=True)
    if tool not in TOOLS:
        raise PlanError(f"--tool {tool!r} is none of {', '.join(TOOLS)}")
    pace, chosen, started = _pace(arrivals), TOOLS[tool], datetime.now(UTC)
    folder = result_folder("agreement", started, out).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    home = load_settings().home
    programs = tool_environment(
        tools_home or home / "benchmark-tools",
        chosen.requirement,
        needs_torch=chosen.needs_torch,
        say=console.print,
    )
    # Both sides make prompts by a base's tokenizer; a scripted server takes any text.
    tokenizer = resolve_base("default" if base == "scripted" else base, home=home).path
    truth: dict[str, float] = {}
    if base == "scripted":
        truth = {"ttft_seconds": ttft_seconds, "tpot_seconds": tpot_seconds}
        spec = known_server("known", folder / "home", truth)
    else:
        flags = ("--kv-cache-gib", f"{kv_cache_gib:g}")
        spec = gateway_spec(folder / "home", find_base(base, folder), flags)
    with running([spec], logs=folder, ready_seconds=_READY_SECONDS) as up:
        url = up[spec.name].url
        workload = Workload(
            url=url,
            model=read_target(url, "completions", adapters=()).base,
            tokenizer=tokenizer,
            arrivals=pace,
            seconds=seconds,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            seed=seed,
        )
        pairs = measure_pairs(
            chosen, programs, workload, rounds=rounds, folder=folder, say=lambda text: console.print(text)
        )
    found = verdicts(pairs)
    command = command_line("agreement")
    surroundings = read_surroundings()
    result = {
        "started": started.isoformat(timespec="seconds"),
        "command": command,
        "tool": chosen.requirement,
        "truth": truth,
        "surroundings": asdict(surroundings),
        "verdicts": [one.to_dict() for one in found],
        "rounds": [asdict(pair) for pair in pairs],
    }
    (folder / "results.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    entry = markdown(
        chosen,
        workload,
        pairs,
        found,
        server=spec.title,
        truth=truth,
        command=command,
        date=f"{started:%Y-%m-%d}",
        surroundings=surroundings,
    )
    (folder / "log-entry.md").write_text(entry, encoding="utf-8")
    print(entry)
    console.print(f"results.json, log-entry.md and the tool's own files: {folder}", soft_wrap=True)
    if not all(one.agrees for one in found):
        raise typer.Exit(1)


def _pace(text: str) -> Arrivals:
    arrivals = parse_arrivals(text)
    if arrivals.kind not in ("closed", "constant"):
        raise PlanError(
            f"--arrivals {text}: both sides send the same in closed:WORKERS and constant:RATE alone"
        )
    return arrivals


if __name__ == "__main__":
    run_app(app, "agreement")
