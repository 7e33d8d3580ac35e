"""Operations of the admin API in the registry: so that a repeated request is known after a restart and elsewhere.

A row is written when an operation starts and once more when it ends. The gateway that runs one touches its row now
and then; a row that nobody has touched for long belongs to a gateway that is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue
from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapters.registry.models import OperationRow
from adapters.registry.registry import Registry

RUNNING = "running"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PhaseSeconds:
    """One phase of an operation and how long it took."""

    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """An operation as it is kept. `answer` is the body that HTTP answers with `status`."""

    id: str
    action: str
    name: str | None
    actor: str
    request_id: str
    key: str | None
    fingerprint: str | None
    state: str
    phases: tuple[PhaseSeconds, ...]
    status: int | None
    answer: dict[str, Any] | None
    started_at: datetime
    ended_at: datetime | None


class OperationTable:
    """Blocking, and safe to call from several threads and processes."""

    def __init__(self, registry: Registry, *, instance: str) -> None:
        """`instance` tells this gateway from others on the same registry, and is the same after a restart."""
        self._registry = registry
        self._instance = instance

    def begin(self, record: OperationRecord) -> OperationRecord:
        """Write a new operation down, or return the earlier one that has the same key of the same actor."""
        with self._registry.session(writes=True) as session:
            try:
                with session.begin_nested():
                    session.add(self._row(record))
            except IntegrityError:
                earlier = self._by_key(session, record)
                if earlier is None:
                    raise
                return _record(earlier)
            return record

    def end(self, record: OperationRecord, *, keep_key: bool) -> None:
        """Write down how an operation ended. Without `keep_key` its key may be used again."""
        values = {
            "state": record.state,
            "phases": _phases(record.phases),
            "status": record.status,
            "answer": record.answer,
            "ended_at": record.ended_at,
            "touched_at": _now(),
        }
        if not keep_key:
            values["key"] = None
        with self._registry.session(writes=True) as session:
            session.execute(update(OperationRow).where(OperationRow.id == record.id).values(values))

    def touch(self, ids: Sequence[str]) -> None:
        """Say that these still run."""
        with self._registry.session(writes=True) as session:
            session.execute(
                update(OperationRow).where(OperationRow.id.in_(ids)).values({"touched_at": _now()})
            )

    def interrupt(
        self, answer: Mapping[str, JsonValue], *, status: int, own: bool, untouched_seconds: float
    ) -> int:
        """End with `answer` what runs no more: rows untouched for so long and, with `own`, this instance's.

        Their keys may be used again. Returns how many there were.
        """
        now = _now()
        gone = OperationRow.touched_at < now - timedelta(seconds=untouched_seconds)
        if own:
            gone = or_(gone, OperationRow.instance == self._instance)
        values = {"state": FAILED, "status": status, "answer": dict(answer), "ended_at": now, "key": None}
        with self._registry.session(writes=True) as session:
            found = session.execute(
                update(OperationRow)
                .where(and_(OperationRow.state == RUNNING, gone))
                .values(values)
                .returning(OperationRow.id)
            )
            return len(found.all())

    def get(self, operation_id: str) -> OperationRecord | None:
        """One operation; None when it is not known (any more)."""
        with self._registry.session(writes=False) as session:
            row = session.get(OperationRow, operation_id)
            return _record(row) if row is not None else None

    def list(self, *, name: str | None = None, limit: int = 100) -> list[OperationRecord]:
        """The newest first."""
        query = select(OperationRow).order_by(OperationRow.started_at.desc(), OperationRow.id).limit(limit)
        if name is not None:
            query = query.where(OperationRow.name == name)
        with self._registry.session(writes=False) as session:
            return [_record(row) for row in session.scalars(query)]

    def prune(self, *, older_than_seconds: float, keep: int) -> int:
        """Forget what ended longer ago than that, and all but the newest `keep`; returns how many went."""
        ended = OperationRow.state != RUNNING
        newest = select(OperationRow.id).order_by(OperationRow.started_at.desc()).limit(keep)
        old = OperationRow.ended_at < _now() - timedelta(seconds=older_than_seconds)
        with self._registry.session(writes=True) as session:
            found = session.execute(
                delete(OperationRow)
                .where(ended, or_(old, OperationRow.id.not_in(newest)))
                .returning(OperationRow.id)
            )
            return len(found.all())

    def _row(self, record: OperationRecord) -> OperationRow:
        return OperationRow(
            id=record.id,
            instance=self._instance,
            action=record.action,
            name=record.name,
            actor=record.actor,
            request_id=record.request_id,
            key=record.key,
            fingerprint=record.fingerprint,
            state=record.state,
            phases=_phases(record.phases),
            status=record.status,
            answer=record.answer,
            started_at=record.started_at,
            touched_at=_now(),
            ended_at=record.ended_at,
        )

    @staticmethod
    def _by_key(session: Session, record: OperationRecord) -> OperationRow | None:
        return session.scalars(
            select(OperationRow).where(OperationRow.actor == record.actor, OperationRow.key == record.key)
        ).one_or_none()


def _phases(phases: Sequence[PhaseSeconds]) -> list[list[JsonValue]]:
    return [[phase.phase, phase.seconds] for phase in phases]


def _record(row: OperationRow) -> OperationRecord:
    return OperationRecord(
        id=row.id,
        action=row.action,
        name=row.name,
        actor=row.actor,
        request_id=row.request_id,
        key=row.key,
        fingerprint=row.fingerprint,
        state=row.state,
        phases=tuple(PhaseSeconds(str(name), float(seconds)) for name, seconds in row.phases),
        status=row.status,
        answer=row.answer,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _now() -> datetime:
    return datetime.now(UTC)
