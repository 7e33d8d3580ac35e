"""Operations and events of the admin API: what is answered."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from adapters.registry.records import EventRecord
from serve.operations.operation import Operation, OperationState


class PhaseView(BaseModel):
    """One phase and how long it took, or has taken until now."""

    phase: str
    seconds: float


class OperationView(BaseModel):
    """An operation: who asked for what, how far it is, and what came of it."""

    id: str
    action: str
    name: str | None
    actor: str
    state: OperationState
    phases: list[PhaseView]
    status: int | None = Field(description="HTTP status of the answer; null while it runs.")
    result: dict[str, Any] | None = Field(description="What the verb answers.")
    error: dict[str, Any] | None = Field(description="Why it failed, as the verb answers.")
    started_at: str
    ended_at: str | None
    seconds: float


class OperationList(BaseModel):
    """Operations, the newest first."""

    operations: list[OperationView]


class EventView(BaseModel):
    """Something that was done, or refused."""

    id: int
    at: str
    actor: str = Field(description="`local`, `admin`, `key:ID`, `watcher`, `gateway`, or `unknown`.")
    action: str
    name: str | None
    digest: str | None
    outcome: str = Field(description="`done`, the code of an error, or the state that was reached.")
    detail: dict[str, Any]


class EventPage(BaseModel):
    """Events, the newest first."""

    events: list[EventView]
    next_before: int | None = Field(description="`before` of the next page; null: there is none.")


def operation_fields(operation: Operation) -> dict[str, Any]:
    """The fields of OperationView."""
    answer = operation.answer
    failed = answer is not None and answer.status >= 400
    return {
        "id": operation.id,
        "action": operation.order.action,
        "name": operation.order.name,
        "actor": operation.order.actor,
        "state": str(operation.state),
        "phases": [{"phase": p.phase, "seconds": p.seconds} for p in operation.current_phases()],
        "status": answer.status if answer is not None else None,
        "result": answer.body if answer is not None and not failed else None,
        "error": answer.body["error"] if answer is not None and failed else None,
        "started_at": operation.started_at.isoformat(),
        "ended_at": operation.ended_at.isoformat() if operation.ended_at is not None else None,
        "seconds": round(operation.seconds, 4),
    }


def event_fields(record: EventRecord) -> dict[str, Any]:
    """The fields of EventView."""
    event = record.event
    return {
        "id": record.id,
        "at": record.at.isoformat(),
        "actor": event.actor,
        "action": event.action,
        "name": event.name,
        "digest": event.digest,
        "outcome": event.outcome,
        "detail": dict(event.detail),
    }
