"""`hotswap train`: what the command line does around a run. Light to import: hotswap.py does at every start."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.training.outcome import TrainOutcome

# Settings of data preparation that are no flags of `train`: its --seed is the training's.
SKIPPED_DATA_SETTINGS = frozenset({"seed"})


def train(
    data: list[str],
    *,
    name: str,
    given: dict[str, Any],
    data_given: dict[str, Any],
    push: Callable[[str], Callable[[Path, str], str]] | None = None,
) -> TrainOutcome:
    """Train on `data` (`[task=]FILE[:weight]` each) and show what came of it.

    `given` and `data_given` are flags, None where not given. `push` makes, from a gateway's address, what loads a
    published folder under a name. Raises HotswapError with the message for the user.
    """
    started_at = time.monotonic()  # before the libraries, which take seconds to load
    from rich.console import Console

    from adapters.data.settings import load_data_settings
    from adapters.data.source import DataSource
    from adapters.errors import TrainingSettingsError
    from adapters.training.settings import load_train_settings

    settings = load_train_settings(**given)
    data_settings = load_data_settings(**data_given)
    if not data and settings.resume is None:
        raise TrainingSettingsError(
            "name at least one file of examples: hotswap train data.jsonl --name risk (only --resume needs none)"
        )
    sources = [DataSource.parse(text) for text in data]
    pushed = None
    is_first = int(os.environ.get("RANK", "0")) == 0
    if settings.push is not None and is_first:
        if push is None:
            raise TrainingSettingsError("--push: this command cannot reach a gateway")
        pushed = push(settings.push)
    _keep_libraries_quiet()
    from adapters.training.run import train_adapter

    console = Console(stderr=True)
    outcome = train_adapter(
        sources,
        name=name,
        settings=settings,
        data_settings=data_settings,
        say=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
        console=console,
        push=pushed,
        started_at=started_at,
    )
    if is_first:
        show_outcome(outcome)
    return outcome


def show_outcome(outcome: TrainOutcome) -> None:
    """A table of the run's figures on standard output, and what to type next."""
    from rich.console import Console
    from rich.table import Column, Table

    # Folders and notes are whole, however narrow the screen.
    columns = (Column(), Column(overflow="fold"))
    table = Table(*columns, title=f"{outcome.name}: {outcome.method} on {outcome.base}", show_header=False)
    before, after = outcome.before, outcome.after
    if before is not None and after is not None:
        table.add_row("validation perplexity", f"{before.perplexity:.4g} -> {after.perplexity:.4g}")
        table.add_row("token accuracy", f"{before.token_accuracy:.1%} -> {after.token_accuracy:.1%}")
    table.add_row("steps", f"{outcome.steps} ({outcome.epochs:.2f} epochs, {outcome.end_reason})")
    table.add_row("weights of step", str(outcome.best_step))
    table.add_row("time", f"{outcome.seconds:.0f} s, {outcome.tokens_per_second:.0f} tokens/s in training")
    table.add_row("trained parameters", f"{outcome.trained_parameters:,} ({outcome.precision})")
    for note in (*outcome.notes, *outcome.conversions):
        table.add_row("note", note)
    table.add_row("run", str(outcome.run_folder))
    table.add_row("adapter", str(outcome.adapter_folder))
    console = Console()
    console.print(table)
    if outcome.pushed is not None:
        sys.stdout.write(f"{outcome.pushed}\nNext: hotswap generate '...' --chat --adapter {outcome.name}\n")
    elif outcome.digest is not None:
        source = f"{outcome.name}/{outcome.adapter_folder.name}"
        sys.stdout.write(f"Next: hotswap adapters load {outcome.name} {source}\n")


def _keep_libraries_quiet() -> None:
    """Their progress bars and hints would break ours."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
