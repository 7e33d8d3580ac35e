"""One operation: who asked for what, how far it is, and what came of it."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from adapters.registry.operations import OperationRecord, PhaseSeconds
from bases.errors import HotswapError

ID_PATTERN = r"^op-[0-9a-f]{24}$"


class OperationState(StrEnum):
    """Where an operation is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers, as HTTP shows it."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asked for."""

    action: str  # "load", "promote", ...
    name: str | None  # of the adapter
    actor: str
    request_id: str
    key: str | None = None  # the client's idempotency key
    fingerprint: str | None = None  # of everything that the request asks for


def new_operation_id() -> str:
    """An id that nobody can guess."""
    return f"op-{secrets.token_hex(12)}"


@dataclass(slots=True, eq=False)
class Operation:
    """Mutable; belongs to one event loop. One that another process ran is as the registry has it, and stays so."""

    id: str
    order: Order
    started_at: datetime
    state: OperationState = OperationState.RUNNING
    phases: list[PhaseSeconds] = field(default_factory=list)
    ended_at: datetime | None = None
    answer: Answer | None = None
    error: HotswapError | None = None  # what the answer was made of, while this process remembers
    elsewhere: bool = False  # another gateway runs it, or ran it: nothing is heard of it here
    _phase: str | None = None
    _phase_started: float = 0.0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def begin(cls, order: Order) -> Operation:
        """A new one that starts now."""
        return cls(new_operation_id(), order, datetime.now(UTC))

    @classmethod
    def restore(cls, record: OperationRecord) -> Operation:
        """One as the registry has it."""
        order = Order(
            record.action, record.name, record.actor, record.request_id, record.key, record.fingerprint
        )
        answer = Answer(record.status, record.answer) if record.status and record.answer is not None else None
        return cls(
            record.id,
            order,
            record.started_at,
            state=OperationState(record.state),
            phases=list(record.phases),
            ended_at=record.ended_at,
            answer=answer,
            elsewhere=True,
        )

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.state is not OperationState.RUNNING

    @property
    def seconds(self) -> float:
        """How long it took, or has taken until now."""
        return ((self.ended_at or datetime.now(UTC)) - self.started_at).total_seconds()

    def enter(self, phase: str) -> None:
        """Begin a phase; the one before it ends. Entering the same phase again does nothing."""
        if self.ended or phase == self._phase:
            return
        self._close_phase()
        self._phase, self._phase_started = phase, time.perf_counter()
        self._tell()

    def end(self, answer: Answer, error: HotswapError | None = None) -> None:
        """Be over, with that answer."""
        self._close_phase()
        self.state = OperationState.DONE if answer.status < 400 else OperationState.FAILED
        self.ended_at = datetime.now(UTC)
        self.answer, self.error = answer, error
        self._tell()

    async def wait(self, seconds: float) -> bool:
        """Wait for the end, at most so long; returns whether it has come."""
        try:
            async with asyncio.timeout(seconds):
                while not self.ended and not self.elsewhere:
                    await self.wait_change()
        except TimeoutError:
            pass
        return self.ended

    async def wait_change(self) -> None:
        """Return when a phase begins or the operation is over."""
        await self._changed.wait()

    def record(self) -> OperationRecord:
        """The operation as the registry keeps it."""
        return OperationRecord(
            id=self.id,
            action=self.order.action,
            name=self.order.name,
            actor=self.order.actor,
            request_id=self.order.request_id,
            key=self.order.key,
            fingerprint=self.order.fingerprint,
            state=str(self.state),
            phases=tuple(self.current_phases()),
            status=self.answer.status if self.answer is not None else None,
            answer=self.answer.body if self.answer is not None else None,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )

    def current_phases(self) -> list[PhaseSeconds]:
        """Phases in their order, the running one with its seconds until now."""
        if self._phase is None:
            return list(self.phases)
        return [*self.phases, PhaseSeconds(self._phase, self._phase_seconds())]

    def _phase_seconds(self) -> float:
        return round(time.perf_counter() - self._phase_started, 4)

    def _close_phase(self) -> None:
        if self._phase is not None:
            self.phases.append(PhaseSeconds(self._phase, self._phase_seconds()))
            self._phase = None

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
