"""The log of events inside one transaction: added to, read in either direction, and rid of what nobody audits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from adapters.registry.models import EventRow
from adapters.registry.records import Event, EventRecord

MAX_EVENTS_PER_LIST = 1000
MAX_PRUNED_AT_ONCE = 10_000  # other writers wait meanwhile
# Any number, as long as nothing else in the same PostgreSQL database takes the same lock.
_LOCK = 0x407_5A91


def add_events(session: Session, events: Sequence[Event]) -> list[EventRecord]:
    """Write events down in the caller's transaction, in their order, with the time of now."""
    if session.get_bind().dialect.name == "postgresql":
        # Ids then become visible in their order: whoever reads on from the last one misses none.
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    now = datetime.now(UTC)
    rows = [
        EventRow(
            at=now,
            actor=event.actor,
            action=event.action,
            name=event.name,
            digest=event.digest,
            outcome=event.outcome,
            detail=dict(event.detail),
        )
        for event in events
    ]
    session.add_all(rows)
    session.flush()
    return [_record(row) for row in rows]


def newest_events(
    session: Session,
    *,
    name: str | None,
    digest: str | None,
    actor: str | None,
    action: str | None,
    without_actions: Sequence[str],
    before_id: int | None,
    limit: int,
) -> list[EventRecord]:
    """The newest first, of those that are as asked for."""
    query = select(EventRow).order_by(EventRow.id.desc()).limit(min(limit, MAX_EVENTS_PER_LIST))
    wanted = ((EventRow.name, name), (EventRow.digest, digest), (EventRow.actor, actor))
    for column, value in (*wanted, (EventRow.action, action)):
        if value is not None:
            query = query.where(column == value)
    if without_actions:
        query = query.where(EventRow.action.not_in(without_actions))
    if before_id is not None:
        query = query.where(EventRow.id < before_id)
    return [_record(row) for row in session.scalars(query)]


def events_behind(session: Session, after_id: int, *, limit: int) -> list[EventRecord]:
    """The oldest first, of those behind `after_id`."""
    query = select(EventRow).order_by(EventRow.id).limit(min(limit, MAX_EVENTS_PER_LIST))
    return [_record(row) for row in session.scalars(query.where(EventRow.id > after_id))]


def last_event_id(session: Session) -> int:
    """The id of the newest; 0 where there is none."""
    return session.scalar(select(func.max(EventRow.id))) or 0


def prune_events(session: Session, *, action: str, keep: int) -> int:
    """Forget events of that action that are not among the newest `keep` of all; how many went.

    The oldest go first, MAX_PRUNED_AT_ONCE at most: what is left goes the next time.
    """
    old = (
        select(EventRow.id)
        .where(EventRow.action == action, EventRow.id <= last_event_id(session) - keep)
        .order_by(EventRow.id)
        .limit(MAX_PRUNED_AT_ONCE)
    )
    gone = session.scalars(delete(EventRow).where(EventRow.id.in_(old)).returning(EventRow.id))
    return len(gone.all())


def _record(row: EventRow) -> EventRecord:
    return EventRecord(
        row.id,
        row.at,
        Event(row.actor, row.action, row.outcome, name=row.name, digest=row.digest, detail=row.detail),
    )
