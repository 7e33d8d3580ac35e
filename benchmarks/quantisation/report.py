"""The whole report as one document: everything that was recorded, of one or more machines."""

from __future__ import annotations

from pydantic import Field

from benchmarks.quantisation.figures import (
    SCHEMA,
    CapitalAnswer,
    EqualityFigures,
    Figures,
    Machine,
    Made,
    MemoryFigures,
    SpeedCell,
    SpeedFigures,
    SubjectName,
    TaskFigures,
)
from quantize.quality.figures import QualityFigures


class MachineFigures(Figures):
    """What was measured on one machine."""

    machine: Machine
    memory: tuple[MemoryFigures, ...] = ()
    capital: tuple[CapitalAnswer, ...] = ()
    task: tuple[TaskFigures, ...] = ()
    equality: tuple[EqualityFigures, ...] = ()
    speed: SpeedFigures | None = None

    def memory_of(self, served: str) -> MemoryFigures | None:
        """Memory of one server of the merged base."""
        return next((each for each in self.memory if each.served == served), None)

    def task_of(self, subject: SubjectName, served: str, adapter: str | None) -> TaskFigures | None:
        """Task figures of one server with one adapter, or without."""
        return next(
            (
                each
                for each in self.task
                if (each.subject, each.served, each.adapter) == (subject, served, adapter)
            ),
            None,
        )

    def cell(self, served: str, concurrency: int) -> SpeedCell | None:
        """Speed of one server at one concurrency."""
        cells = self.speed.cells if self.speed is not None else ()
        return next(
            (each for each in cells if (each.served, each.concurrency) == (served, concurrency)), None
        )


class Report(Figures):
    """`quality` is keyed by form and text: `gptq-w4a16/chat`, of the unmerged base `plain/gptq-w4a16/chat`.

    `machines` is keyed by label. Of `made`, `merged` is the base with the adapter merged in, `plain` the base
    itself, on which the adapter is put.
    """

    schema_version: str = SCHEMA
    created: str
    command: str
    quick: bool
    base: str
    made: Made
    texts: dict[str, str] = Field(default_factory=dict, description="Title of each text of `quality`.")
    quality: dict[str, QualityFigures] = Field(default_factory=dict)
    machines: dict[str, MachineFigures] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def adapter(self) -> str:
        """Name of the task's adapter."""
        return self.made.adapter.name

    @property
    def schemes(self) -> list[str]:
        """Of the merged base's forms, in order."""
        return [form.scheme for form in self.made.merged if form.scheme is not None]
