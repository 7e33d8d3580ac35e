"""`hotswap data`: look at training data before it is learned from, and write it down prepared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapters.data.settings import ENV_PREFIX, DataSettings, load_data_settings
from bases.settings_options import with_options

if TYPE_CHECKING:
    from rich.console import Console

    from adapters.data.prepare import PreparedData

data_app = typer.Typer(help="Inspect and prepare training data.", no_args_is_help=True)

_SAY_SECONDS = 2.0

FilesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Files or folders, as `PATH` or `task=PATH:weight`: JSONL, JSON, CSV, TSV, Parquet, or a folder of "
        "them or of Hugging Face datasets."
    ),
]


def _inspect(
    files: FilesArgument,
    base: Annotated[
        str,
        typer.Option(
            help="Base whose tokens are counted: `default`, a folder or a hub id; `none`: characters."
        ),
    ] = "default",
    samples: Annotated[int, typer.Option(min=0, help="Examples shown with the mask of learned tokens.")] = 3,
    findings: Annotated[
        int, typer.Option(min=0, help="Examples shown of what each step removed or flagged.")
    ] = 3,
    **given: Any,
) -> None:
    """Show what preparation does to the data and which tokens are learned; nothing is written.

    Example: hotswap data inspect examples/risk/train.jsonl
    """
    from rich.console import Console

    from adapters.data import inspect_view as view
    from adapters.data.inspect import count_characters, count_labels, view_tokens

    settings = load_data_settings(**given)
    console = Console()
    with _progress() as progress:
        tokenizer = _base_folder(base, progress)
        prepared = _prepare(files, settings, progress)
    view.show_funnel(console, prepared.funnel)
    view.show_splits(console, prepared)
    _show_findings(console, prepared, findings)
    view.show_labels(console, count_labels(prepared))
    warnings = prepared.warnings
    if tokenizer is None:
        view.show_lengths(console, count_characters(prepared))
    else:
        with _progress() as progress:
            tokens = view_tokens(prepared, tokenizer, num_samples=samples, progress=progress)
        view.show_lengths(console, tokens.lengths)
        view.show_tokens(console, tokens)
        warnings += tokens.warnings
    view.show_warnings(console, warnings)


def _write(
    files: FilesArgument,
    out: Annotated[Path, typer.Option(help="Folder to make; one that holds something is refused.")],
    **given: Any,
) -> None:
    """Write the prepared data as train.jsonl, validation.jsonl and test.jsonl, with the funnel beside them.

    Example: hotswap data prepare notes.csv --columns prompt=note,completion=answer --out prepared
    """
    from rich.console import Console

    from adapters.data import inspect_view as view
    from adapters.data.problems import num
    from adapters.data.write import check_free, write_prepared

    settings = load_data_settings(**given)
    check_free(out)
    console = Console()
    with _progress() as progress:
        prepared = _prepare(files, settings, progress)
        paths = write_prepared(prepared, out, settings)
    view.show_funnel(console, prepared.funnel)
    view.show_warnings(console, prepared.warnings)
    for split, path in paths.items():
        console.print(
            f"{path}: {num(len(prepared.splits[split]), 'example')}", highlight=False, soft_wrap=True
        )
    console.print(f"fingerprint {prepared.fingerprint}", highlight=False, soft_wrap=True)


data_app.command("inspect")(with_options(DataSettings, env_prefix=ENV_PREFIX)(_inspect))
data_app.command("prepare")(with_options(DataSettings, env_prefix=ENV_PREFIX)(_write))


def _base_folder(base: str, progress: Callable[[str], None]) -> Path | None:
    """Looked for before the data is read, which may take long. Raises BaseModelError."""
    if base == "none":
        return None
    from bases.resolve import resolve_base
    from bases.settings import BasesSettings

    return resolve_base(base, home=BasesSettings().home, progress=progress).path


def _prepare(files: list[str], settings: DataSettings, progress: Callable[[str], None]) -> PreparedData:
    from adapters.data.prepare import prepare_data
    from adapters.data.source import DataSource

    return prepare_data([DataSource.parse(file) for file in files], settings, progress=progress)


def _show_findings(console: Console, prepared: PreparedData, number: int) -> None:
    from adapters.data import inspect_view as view

    for step in ("near-duplicates", "exact duplicates", "leak check"):
        view.show_pairs(console, prepared.funnel.row(step), number)
    for row in prepared.funnel.rows:
        view.show_findings(
            console,
            f"Flagged: {row.step}",
            row.flagged_findings,
            number,
            hide_text=row.step == "personal data",
        )


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says what is being done: in one line that goes away on a terminal, else a line every two seconds at most."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(Text(text))
        return
    said_at = time.monotonic()

    def say(text: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > _SAY_SECONDS:
            said_at = time.monotonic()
            console.print(text, highlight=False, markup=False)

    yield say
