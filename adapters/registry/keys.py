"""API keys in the registry: what each may do, and the digest by which it is known. Never a key itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from adapters.errors import KeyNotFoundError
from adapters.registry.events import add_events
from adapters.registry.models import KeyRow, StateRow
from adapters.registry.records import Event
from adapters.registry.registry import Registry

_STATE_ID = 2


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be added. `digest` is the sha256 of the key in hex; None is no limit."""

    id: str
    digest: str
    label: str
    tenant: str
    admin: bool = False
    metrics: bool = False
    adapters: tuple[str, ...] | None = None  # names and patterns; None: all, and the base
    weight: float = 1.0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    max_tokens: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is kept."""

    key: NewKey
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class KeyTable:
    """Blocking, and safe to call from several threads and processes. Raises RegistryError."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def add(self, key: NewKey, *, actor: str) -> KeyRecord:
        """Add a key, and write into the audit log that `actor` did."""
        now = _now()
        with self._registry.session(writes=True) as session:
            _count_change(session)
            row = KeyRow(**_columns(key), created_at=now, created_by=actor)
            session.add(row)
            add_events(session, [_event(actor, "create_key", row)])
            return _record(row)

    def revoke(self, key_id: str, *, actor: str) -> KeyRecord:
        """Take a key back for good; one that is revoked stays as it is. Raises KeyNotFoundError."""
        now = _now()
        with self._registry.session(writes=True) as session:
            _count_change(session)
            row = _row(session, key_id)
            if row.revoked_at is None:
                row.revoked_at = now
                add_events(session, [_event(actor, "revoke_key", row)])
            return _record(row)

    def get(self, key_id: str) -> KeyRecord:
        """One key. Raises KeyNotFoundError."""
        with self._registry.session(writes=False) as session:
            return _record(_row(session, key_id))

    def list_all(self) -> list[KeyRecord]:
        """All keys, revoked ones too, newest first."""
        with self._registry.session(writes=False) as session:
            rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at.desc(), KeyRow.id))
            return [_record(row) for row in rows]

    def read_valid(self, known_revision: int | None) -> tuple[int, list[KeyRecord] | None]:
        """A number that grows with every change and, unless it is `known_revision`, the keys not revoked.

        The number is read first: what changes meanwhile is read again later.
        """
        with self._registry.session(writes=False) as session:
            revision = session.scalar(select(StateRow.revision).where(StateRow.id == _STATE_ID)) or 0
            if revision == known_revision:
                return revision, None
            rows = session.scalars(select(KeyRow).where(KeyRow.revoked_at.is_(None)))
            return revision, [_record(row) for row in rows]

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        """Write down when keys were last used. Counts as no change."""
        with self._registry.session(writes=True) as session:
            for key_id, moment in sorted(uses.items()):
                session.execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=moment))


def _count_change(session: Session) -> None:
    """First in the transaction: changes then come one after the other, on PostgreSQL too."""
    session.execute(update(StateRow).where(StateRow.id == _STATE_ID).values(revision=StateRow.revision + 1))


def _row(session: Session, key_id: str) -> KeyRow:
    row = session.get(KeyRow, key_id)
    if row is None:
        raise KeyNotFoundError(f"There is no API key with the id {key_id[:40]!a}.")
    return row


def _event(actor: str, action: str, row: KeyRow) -> Event:
    detail: dict[str, JsonValue] = {
        "key": row.id,
        "label": row.label,
        "tenant": row.tenant,
        "admin": row.admin,
    }
    return Event(actor, action, "done", detail=detail)


_FIELDS = tuple(field.name for field in fields(NewKey))  # each has a column of its name


def _columns(key: NewKey) -> dict[str, Any]:
    values = {name: getattr(key, name) for name in _FIELDS}
    return {**values, "adapters": list(key.adapters) if key.adapters is not None else None}


def _record(row: KeyRow) -> KeyRecord:
    values: dict[str, Any] = {name: getattr(row, name) for name in _FIELDS}
    key = NewKey(**{**values, "adapters": tuple(row.adapters) if row.adapters is not None else None})
    return KeyRecord(key, row.created_at, row.created_by, row.revoked_at, row.last_used_at)


def _now() -> datetime:
    return datetime.now(UTC)
