"""How far an evaluation is, on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adapters.evaluation.answerers.answerer import Progress
from adapters.evaluation.evaluate import Stage


@contextmanager
def terminal_progress() -> Iterator[Stage]:
    """A bar for each stage on standard error; where that is no terminal, nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        def stage(description: str) -> Progress:
            task = bars.add_task(description, total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            return advance

        yield stage
