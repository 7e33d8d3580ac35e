"""What measuring servers of one machine shares: the plan, the records, and how a figure gets into them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.quantisation.figures import (
    CapitalAnswer,
    EqualityFigures,
    Machine,
    MadeAdapter,
    MemoryFigures,
    SpeedFigures,
    SubjectName,
    TaskFigures,
)
from benchmarks.quantisation.fleet import Say, ask_capital, up
from benchmarks.quantisation.plan import ReportPlan
from benchmarks.quantisation.record import Record
from benchmarks.quantisation.served import Served
from benchmarks.quantisation.task import Task, ask_task, read_task
from benchmarks.server import Server
from benchmarks.surroundings import read_surroundings

MACHINES = "machines"
_SAY_EVERY = 100
_LEAST_RANK = 8  # the gateway has no smaller slots


class Bench:
    """The records of one machine, in `folder`."""

    def __init__(self, plan: ReportPlan, say: Say) -> None:
        self.plan = plan
        self.say = say
        self.folder = plan.out / MACHINES / plan.label
        self.folder.mkdir(parents=True, exist_ok=True)
        self.machine = Record(self.folder / "machine.json", Machine)
        self.memory = Record(self.folder / "memory.json", MemoryFigures)
        self.capital = Record(self.folder / "capital.json", CapitalAnswer)
        self.task = Record(self.folder / "task.json", TaskFigures)
        self.equality = Record(self.folder / "equality.json", EqualityFigures)
        self.speed = Record(self.folder / "speed.json", SpeedFigures)
        self._notes: Task | None = None

    @property
    def notes(self) -> Task:
        """The task's notes, read once."""
        if self._notes is None:
            plan = self.plan
            self._notes = read_task(plan.data, label_pattern=plan.label_pattern, limit=plan.task_examples)
        return self._notes

    @contextlib.contextmanager
    def up(
        self, served: Sequence[Served], *, adapter_rank: int, place: str = ""
    ) -> Iterator[dict[str, Server]]:
        """Servers by name, all ready; the machine is written down as it is before they start.

        Raises ServerStartError.
        """
        machine = Machine(line=read_surroundings().line(), isa=self.plan.isa)
        self.machine.put("machine", self.plan.label, machine)
        folder = self.folder / place
        with up(served, self.plan, folder=folder, adapter_rank=adapter_rank, say=self.say) as servers:
            yield servers

    def subject(self, served: Served, adapter: MadeAdapter | None = None) -> str:
        """What figures of a server are of: another base, adapter or size makes other figures."""
        plan = self.plan
        return (
            f"{served.form.fingerprint} {served.dtype} {adapter.digest if adapter else 'base'} {plan.isa} "
            f"{plan.task_examples} {plan.equality_prompts}x{plan.equality_tokens} {plan.kv_cache_gib:g}"
        )

    def wants_task(self, served: Served, subject: SubjectName, adapter: MadeAdapter | None) -> bool:
        """Whether the task is to be asked and was not yet."""
        name = item_name(subject, served, adapter)
        return "task" in self.plan.parts and self.task.get(name, self.subject(served, adapter)) is None

    def wants_equality(self, served: Served, adapter: MadeAdapter | None) -> bool:
        """Whether answers are to be compared and were not yet."""
        name = item_name("plain", served, adapter)
        return (
            "equality" in self.plan.parts and self.equality.get(name, self.subject(served, adapter)) is None
        )

    def wants_memory(self, served: Served) -> bool:
        """Whether memory is to be read and was not yet."""
        return (
            "memory" in self.plan.parts
            and self.memory.get(item_name("merged", served, None), self.subject(served)) is None
        )

    def ask_capital(self, served: Served, server: Server, subject: SubjectName) -> None:
        """The first request of a server that has come up."""
        answer = ask_capital(server, subject)
        self.say(f"{subject} {served.name}: {' '.join(answer.text.split())!r}")
        self.capital.put(item_name(subject, served, None), self.subject(served), answer)

    def ask_task(
        self, served: Served, server: Server, subject: SubjectName, adapter: MadeAdapter | None
    ) -> None:
        """Ask all notes, if they were not asked yet. Raises EvaluationError."""
        if not self.wants_task(served, subject, adapter):
            return
        name = item_name(subject, served, adapter)

        def progress(done: int, total: int) -> None:
            if done % _SAY_EVERY == 0:
                self.say(f"task {name}: {done} of {total}")

        figures = ask_task(
            server.url,
            self.notes,
            subject=subject,
            served=served.name,
            adapter=adapter.name if adapter is not None else None,
            max_tokens=self.plan.task_tokens,
            progress=progress,
        )
        self.say(f"task {name}: {figures.accuracy.value:.1%} right in {figures.seconds:.0f} s")
        self.task.put(name, self.subject(served, adapter), figures)


def item_name(subject: SubjectName, served: Served, adapter: MadeAdapter | None) -> str:
    """Where a figure of a server stands in its record."""
    return f"{subject}/{served.name}" + (f"+{adapter.name}" if adapter is not None else "")


def rank_for(adapters: Sequence[MadeAdapter]) -> int:
    """The smallest rank of slots that the engine has and all adapters fit into."""
    from adapters.config_rules import ENGINE_RANKS

    highest = max((_LEAST_RANK, *(adapter.rank for adapter in adapters)))
    return next((rank for rank in ENGINE_RANKS if rank >= highest), ENGINE_RANKS[-1])


def adapter_folder(adapter: MadeAdapter) -> Path:
    """Where its files are."""
    return Path(adapter.folder)
