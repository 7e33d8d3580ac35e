"""The command line. Exit codes: 0 measured, 1 could not be measured, 2 wrong usage."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bases.resolve import resolve_base
from bases.settings import BasesSettings
from benchmarks.entry import command_line, result_folder, run_app
from benchmarks.surroundings import CHECKOUT, read_surroundings
from benchmarks.training_throughput.block import TITLES, BlockResult, BlockTask, ContenderName
from benchmarks.training_throughput.report import markdown

_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate")
_EXAMPLE = CHECKOUT / "examples" / "risk"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(min=1, help="Every contender trains once a round, in turns.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Measured optimiser steps of a block.")] = 16,
    warmup_steps: Annotated[int, typer.Option(min=0, help="Steps before them that do not count.")] = 3,
    examples_per_step: Annotated[int, typer.Option(min=1, help="Examples of one step.")] = 8,
    base: Annotated[str, typer.Option(help="`default`, a folder or a hub id.")] = "default",
    train: Annotated[Path, typer.Option(help="JSONL with chat examples.")] = _EXAMPLE / "train.jsonl",
    validation: Annotated[Path, typer.Option(help="The same, held out.")] = _EXAMPLE / "validation.jsonl",
    validation_examples: Annotated[
        int, typer.Option(min=0, help="How many of them the loss is measured on.")
    ] = 64,
    contenders: Annotated[str, typer.Option(help="Comma list.")] = ",".join(TITLES),
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results. Default: build/bench/training_throughput/TIME."),
    ] = None,
) -> None:
    """Measure tokens per second of training: ours, TRL with its defaults, a plain loop.

    Example: python -m benchmarks.training_throughput --rounds 5 --steps 16
    """
    names: list[ContenderName] = [name for name in TITLES if name in contenders.split(",")]
    if unknown := sorted(set(contenders.split(",")) - set(TITLES)):
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(TITLES)}")
    folder = result_folder("training_throughput", datetime.now(UTC), out)
    folder.mkdir(parents=True, exist_ok=True)
    where = read_surroundings(_PACKAGES)
    resolved = resolve_base(base, home=BasesSettings().home, progress=console.print)
    task = BlockTask(
        contender="hotswap",
        base=str(resolved.path),
        train=str(train),
        validation=str(validation),
        validation_examples=validation_examples,
        steps=steps,
        warmup_steps=warmup_steps,
        examples_per_step=examples_per_step,
    )
    blocks: list[BlockResult] = []
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            block = _block(task.model_copy(update={"contender": name}), folder / f"{number}-{name}.log")
            blocks.append(block.model_copy(update={"round": number}))
            console.print(
                f"round {number + 1} of {rounds}: {TITLES[name]} {block.tokens_per_second:.0f} tok/s"
            )
            with (folder / "blocks.jsonl").open("a", encoding="utf-8") as file:
                file.write(blocks[-1].model_dump_json() + "\n")
    text = markdown(blocks, task, where, command_line("training_throughput"))
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(text)
    console.print(f"blocks and report are in {folder}")


def _block(task: BlockTask, log: Path) -> BlockResult:
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training_throughput.worker"],
            input=task.model_dump_json(),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            cwd=CHECKOUT,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        console.print(
            f"{TITLES[task.contender]} ended with exit code {done.returncode}:\n{tail}", markup=False
        )
        raise typer.Exit(1)
    return BlockResult.model_validate_json(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    run_app(app, "training_throughput")
