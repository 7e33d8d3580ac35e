"""How far an evaluation is: a bar for people who watch, a line now and then for logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adapters.evaluation.answerers.answerer import Progress
from adapters.evaluation.evaluate import Stage

_LINE_SECONDS = 10.0


@contextmanager
def terminal_progress() -> Iterator[Stage]:
    """A bar for each stage on standard error; where that is no terminal, a line every ten seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield line_progress(_say)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console) as bars:

        def stage(description: str) -> Progress:
            task = bars.add_task(description, total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            return advance

        yield stage


def line_progress(say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> Stage:
    """Stages that `say` a line every ten seconds, and nothing while they are quicker."""

    def stage(description: str) -> Progress:
        said_at = now()

        def advance(done: int, total: int) -> None:
            nonlocal said_at
            if now() - said_at >= _LINE_SECONDS:
                said_at = now()
                say(f"{description}: {done:,} of {total:,}")

        return advance

    return stage


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
