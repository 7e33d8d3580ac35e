"""`hotswap bench peers`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.load.commands.console import Progress
from benchmarks.load.commands.finish import EXIT_INTERRUPTED, EXIT_INVALID, finish
from benchmarks.load.settings import load_bench_settings


def peers(
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peer",
            help="vllm, vllm-mended (with our mends of vLLM), vllm-defaults, tutorial, llamacpp (other weights: "
            "-f32, -bf16, -q8, -q4), gateway@BASE or gateway@BASE:DTYPE, or NAME=URL of a server that runs "
            "already. Repeatable; ratios are to the first.",
        ),
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            help="Base model, as for `hotswap serve`, with :DTYPE if wanted; tiny; or scripted: no model.",
        ),
    ] = "default",
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100, help="Turns of each; ratios are within a round.")
    ] = 5,
    waves: Annotated[
        int,
        typer.Option(
            "--waves",
            min=0,
            max=1000,
            help="After the turns, so often one answer of each worker, servers in turns: pairs are seconds apart.",
        ),
    ] = 0,
    concurrency: Annotated[
        str | None,
        typer.Option(
            "--concurrency", help="Closed loops of so many workers, with commas, one after the other."
        ),
    ] = None,
    random_adapters: Annotated[
        int, typer.Option("--random-adapters", min=0, max=256, help="Ask so many random adapters, too.")
    ] = 0,
    kv_cache_gib: Annotated[
        float, typer.Option("--kv-cache-gib", min=0.1, help="KV cache of each server on a CPU, in GiB.")
    ] = 1.0,
    apart: Annotated[
        bool, typer.Option("--apart", help="One server up at a time, started anew for each turn.")
    ] = False,
    most_seconds: Annotated[
        float,
        typer.Option(
            "--most-seconds", min=1.0, help="Longest window of a server whose answers take long, in seconds."
        ),
    ] = 120.0,
    llama_server: Annotated[
        Path | None,
        typer.Option(
            "--llama-server",
            help="llama.cpp's server. Default: the one on PATH, else a package that is installed once.",
        ),
    ] = None,
    gguf: Annotated[
        Path | None,
        typer.Option("--gguf", help="The base for llama.cpp. Default: what the default base came in."),
    ] = None,
    **given: Any,
) -> None:
    """Our gateway and other servers on the same base, in turns, and their ratios.

    With --url a gateway that runs already takes part. Without --api it is asked in its own dialect and in OpenAI's.

    Example: hotswap bench peers --peer vllm --peer tutorial --concurrency 1,32 --rounds 5
    """
    import tempfile
    from dataclasses import asdict

    from benchmarks.load.client.wire import Dialect
    from benchmarks.load.peers.contest import Contest
    from benchmarks.load.peers.findings import conclude
    from benchmarks.load.peers.lineup import LineupOptions, make_lineup
    from benchmarks.load.peers.peer import parse_peers
    from benchmarks.load.peers.wave_findings import wave_lines
    from benchmarks.load.workload.arrivals import parse_arrivals

    choices = parse_peers(peer or ())
    settings = load_bench_settings(**given)
    texts = [settings.arrivals]
    if concurrency is not None:
        texts = [f"closed:{number.strip()}" for number in concurrency.split(",")]
    loads = [parse_arrivals(text) for text in texts]
    dialects: tuple[Dialect, ...] = ("generate", "completions")
    if "api" in settings.model_fields_set:
        dialects = (settings.api,)
    options = LineupOptions(
        base=base,
        kv_cache_gib=kv_cache_gib,
        adapters=random_adapters,
        slots=max(load.workers if load.closed else settings.max_in_flight for load in loads),
        together=not apart,
        gateway_url=settings.url if "url" in settings.model_fields_set else None,
        llama_server=llama_server,
        gguf=gguf,
    )
    with (
        _folder(settings.out),
        Progress() as progress,
        tempfile.TemporaryDirectory(prefix="hotswap-peers-") as work,
    ):
        lineup = make_lineup(choices, dialects, options, Path(work), say=progress.say)
        contest = Contest(
            lineup,
            settings,
            together=not apart,
            most_seconds=most_seconds,
            folder=settings.out,
            say=progress.say,
            progress=progress.tick,
        )
        measured = contest.run(loads, rounds, choices[0].name, waves=waves)
    found = conclude(measured, choices[0].name, left_out=contest.left_out, stopped=contest.stopped)
    told = [
        line for load, taken in contest.waves.items() for line in wave_lines(load, taken, choices[0].name)
    ]
    conclusion = {
        **found,
        "notes": [*told, *found["notes"]],
        "waves": {
            load: {name: [asdict(one) for one in taken] for name, taken in by_way.items()}
            for load, by_way in contest.waves.items()
        },
        "engine_settings": dict(lineup.settings),
    }
    runs = [turn.run for one in measured for turn in one.turns]
    finish("peers", measured[0].ways[0].bench, runs, conclusion, fail_invalid=contest.stopped is None)
    if contest.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if contest.stopped is not None:
        raise typer.Exit(EXIT_INVALID)


@contextlib.contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Made for what is kept, and taken away again where the block keeps nothing in it."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # there is something in it
                out.rmdir()
