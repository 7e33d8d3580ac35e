"""Reads all sources of a run, and keeps apart what the user gave as validation and test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from adapters.data.example import Example
from adapters.data.funnel import FunnelRow
from adapters.data.read import ReadOptions, read_source
from adapters.data.settings import DataSettings
from adapters.data.source import DEFAULT_TASK, DataSource, common_task
from adapters.data.split_name import Split
from adapters.errors import DataError


@dataclass(slots=True)
class Gathered:
    """Examples by what they are for; `pool` is what training data, and splits that are not given, come from."""

    pool: list[Example] = field(default_factory=list)
    held: dict[Split, list[Example]] = field(default_factory=lambda: {"validation": [], "test": []})
    all_tasks_given: set[Split] = field(default_factory=set)
    """Splits given by a file that names no task, which therefore holds for every task."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """Every task of the pool to the weight of the source it came from."""
    num_rows: int = 0
    warnings: list[str] = field(default_factory=list)

    def is_given(self, split: Split, task: str) -> bool:
        """Whether the user gave that split for the task, so that nothing is taken from the pool for it."""
        return split in self.all_tasks_given or any(example.task == task for example in self.held[split])

    def task_sets(self) -> Iterable[set[str]]:
        """The pool's tasks, together where the same splits were given for them."""
        sets: dict[tuple[bool, bool], set[str]] = {}
        for task in dict.fromkeys(example.task for example in self.pool):
            given = (self.is_given("validation", task), self.is_given("test", task))
            sets.setdefault(given, set()).add(task)
        return sets.values()


def gather(
    sources: Sequence[DataSource], settings: DataSettings, *, progress: Callable[[str], None]
) -> tuple[Gathered, FunnelRow]:
    """Read the sources, then `validation_file` and `test_file`. Raises DataError."""
    started = time.perf_counter()
    options = ReadOptions(
        columns=settings.column_map,
        chat=settings.chat,
        system=settings.system,
        label_pattern=settings.label_pattern,
        max_line_bytes=settings.max_line_bytes,
        skip_bad_lines=settings.skip_bad_lines,
        csv_delimiter=settings.csv_delimiter,
    )
    gathered = Gathered()
    warned: dict[str, list[str]] = {}

    def read(source: DataSource, split: Split | None) -> None:
        progress(f"Reading {source.path.name}")
        found = read_source(source, options, progress=progress)
        gathered.num_rows += found.num_rows
        for warning in found.warnings:
            warned.setdefault(warning, []).append(source.path.name)
        for own, examples in found.parts.items():
            part = split or own or "train"
            (gathered.pool if part == "train" else gathered.held[part]).extend(examples)

    for source in sources:
        num_known = len(gathered.pool)
        read(source, None)
        for task in {example.task for example in gathered.pool[num_known:]}:
            known = gathered.task_weights.setdefault(task, source.weight)
            if known != source.weight:
                raise DataError(
                    f"{source.path}: the task {task!r} has the weights {known:g} and {source.weight:g}; give one "
                    "weight per task."
                )
    given: dict[Split, tuple[str, ...]] = {"validation": settings.validation_file, "test": settings.test_file}
    for split, names in given.items():
        for source in map(DataSource.parse, names):
            if source.task == DEFAULT_TASK:
                gathered.all_tasks_given.add(split)
                source = replace(source, task=common_task(sources))
            read(source, split)
    gathered.warnings += [f"{', '.join(names)}: {warning}" for warning, names in warned.items()]
    if not gathered.pool:
        raise DataError(f"{sources[0].path}: there are no training examples, only held-out ones.")
    num_examples = len(gathered.pool) + sum(map(len, gathered.held.values()))
    seconds = time.perf_counter() - started
    return gathered, FunnelRow("read", gathered.num_rows, num_examples, seconds=seconds)
