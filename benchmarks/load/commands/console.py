"""What `hotswap bench` shows while load runs and when it has ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.load.report.table import Table

_SAY_SECONDS = 10.0


class Progress:
    """One line that is written over while load runs; where nobody watches, a line every ten seconds."""

    def __init__(self, prefix: Callable[[], str] = str) -> None:
        """`prefix` goes before each line, e.g. the time that is left."""
        from rich.console import Console

        self._prefix = prefix
        self._console = Console(stderr=True)
        self._status: Any = None
        self._said = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.__enter__()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._status is not None:
            self._status.__exit__(*ended)

    def say(self, text: str) -> None:
        """What happens now."""
        self._said = 0.0
        self._console.print(self._prefix() + text, highlight=False, markup=False, soft_wrap=True)

    def tick(self, now: dict[str, float]) -> None:
        """Once a second."""
        text = (
            f"{self._prefix()}{now['seconds']:.0f} s: {now['sent']:.0f} sent, {now['running']:.0f} under way, "
            f"{now['ok_per_second']:.1f} answers/s, {now['tokens_per_second']:.0f} tok/s, "
            f"{now['rejected']:.0f} rejected, {now['failed']:.0f} failed"
        )
        if self._status is not None:
            self._status.update(text)
        elif now["seconds"] - self._said >= _SAY_SECONDS:
            self._said = now["seconds"]
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def show(table: Table) -> None:
    """A table on standard output."""
    from rich.console import Console
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(table.headings):
        shown.add_column(heading, justify="left" if place == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*row)
    console = Console(markup=False)
    console.print(shown)
    for note in table.notes:
        console.print(note)


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)
