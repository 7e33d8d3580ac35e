"""What the user names on the command line as training data: `[task=]PATH[:weight]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from adapters.errors import DataError

DEFAULT_TASK = "default"

_TASK = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)
_WEIGHT = re.compile(r"(.+):([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class DataSource:
    """A file or folder of examples, the task they teach, and how much that task counts in the loss."""

    path: Path
    task: str = DEFAULT_TASK
    weight: float = 1.0
    """Above 0; the weights of several tasks are relative to one another."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `[task=]PATH[:weight]`: `notes.jsonl`, `risk=notes.jsonl`, `risk=notes.jsonl:0.5`.

        What exists as it stands is a path, whatever signs are in it. A tail after the last `:` that is no number
        belongs to the path, and so does a head before `=` that is no plain name (`runs/lr=1/data.jsonl`).
        Raises DataError for an empty path and for a weight that is not above 0.
        """
        if not text.strip():
            raise DataError("An empty name of a data file was given; name a file or a folder of examples.")
        if _exists(text):
            return cls(Path(text).expanduser())
        task, weight, rest = DEFAULT_TASK, 1.0, text
        if named := _TASK.fullmatch(rest):
            task, rest = named.groups()
        if not _exists(rest) and (weighed := _WEIGHT.fullmatch(rest)):
            rest, weight = weighed.group(1), float(weighed.group(2))
        if not 0 < weight < float("inf"):
            raise DataError(f"{text}: the weight {weight:g} is not above 0; write for example `{rest}:0.5`.")
        return cls(Path(rest).expanduser(), task, weight)


def check_sources(sources: Sequence[DataSource]) -> None:
    """Raise DataError when there is no source, or when one task is given two weights."""
    if not sources:
        raise DataError("No data was named; name at least one file or folder of examples.")
    weights: dict[str, float] = {}
    for source in sources:
        known = weights.setdefault(source.task, source.weight)
        if known != source.weight:
            raise DataError(
                f"{source.path}: the task {source.task!r} has the weights {known:g} and {source.weight:g}; "
                "give one weight per task, or name the second set as a task of its own (`name=PATH:weight`)."
            )


def common_task(sources: Iterable[DataSource]) -> str:
    """The task that all sources share, else the default one."""
    tasks = {source.task for source in sources}
    return tasks.pop() if len(tasks) == 1 else DEFAULT_TASK


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown ~user
        return False
