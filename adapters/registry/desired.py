"""The desired state inside one transaction: read whole, changed one piece at a time, and counted.

Every change raises `state.revision` in its own transaction, so that a gateway that polls one number knows when to
look. The row is locked before anything is read: changes come one after the other, on PostgreSQL too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from adapters.errors import AdapterNotFoundError
from adapters.name import AdapterVersion
from adapters.registry.models import AliasRow, StateRow, TrafficRow, VersionRow
from adapters.registry.records import NameRecord, Snapshot, VersionRecord

_STATE_ID = 1


def lock_state(session: Session) -> None:
    """Wait until no other change of the desired state is under way."""
    session.execute(select(StateRow.revision).where(StateRow.id == _STATE_ID).with_for_update())


def count_change(session: Session) -> None:
    """Raise the revision, with the change that this transaction makes."""
    session.execute(update(StateRow).where(StateRow.id == _STATE_ID).values(revision=StateRow.revision + 1))


def read_revision(session: Session) -> int:
    """The number of changes until now."""
    return session.scalar(select(StateRow.revision).where(StateRow.id == _STATE_ID)) or 0


def read_snapshot(session: Session) -> Snapshot:
    """The whole desired state. The revision is read first: what changes meanwhile is read again later."""
    revision = read_revision(session)
    return Snapshot(revision, {record.name: record for record in _read_names(session, None)})


def read_name(session: Session, name: str) -> NameRecord:
    """What is known of one name; of an unknown one, nothing."""
    return next(iter(_read_names(session, name)), NameRecord(name))


def set_flag(session: Session, version: AdapterVersion, flag: str, value: bool) -> bool:
    """Set `pinned` or `loaded`; False when it was so. Raises AdapterNotFoundError."""
    column: InstrumentedAttribute[bool] = getattr(VersionRow, flag)
    before = session.scalar(select(column).where(*_is(version)))
    if before is None:
        raise AdapterNotFoundError(f"Version {version} is not registered. Load the adapter first.")
    if before == value:
        return False
    session.execute(update(VersionRow).where(*_is(version)).values({flag: value}))
    count_change(session)
    return True


def set_plan(session: Session, name: str, plan: str | None) -> bool:
    """Keep the traffic plan of a name (None: drop it); False when it was so."""
    before = session.scalar(select(TrafficRow.plan).where(TrafficRow.name == name))
    if before == plan:
        return False
    session.execute(delete(TrafficRow).where(TrafficRow.name == name))
    if plan is not None:
        session.execute(insert(TrafficRow).values(name=name, plan=plan, updated_at=datetime.now(UTC)))
    count_change(session)
    return True


def forget(session: Session, name: str) -> list[AdapterVersion]:
    """Drop alias, traffic and versions of a name; returns the versions, oldest first."""
    gone = [record.version for record in read_name(session, name).versions]
    for table in (AliasRow, TrafficRow, VersionRow):
        session.execute(delete(table).where(table.name == name))
    count_change(session)
    return gone


def _is(version: AdapterVersion) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return VersionRow.name == version.name, VersionRow.digest == version.digest


def _read_names(session: Session, name: str | None) -> Iterator[NameRecord]:
    # Columns, not objects of the session: a thousand names are read whenever one changes.
    versions = select(
        VersionRow.name,
        VersionRow.digest,
        VersionRow.rank,
        VersionRow.num_bytes,
        VersionRow.base_fingerprint,
        VersionRow.source,
        VersionRow.created_at,
        VersionRow.pinned,
        VersionRow.loaded,
    ).order_by(VersionRow.name, VersionRow.created_at, VersionRow.digest)
    aliases = select(AliasRow.name, AliasRow.digest, AliasRow.previous_digest)
    plans = select(TrafficRow.name, TrafficRow.plan)
    if name is not None:
        versions = versions.where(VersionRow.name == name)
        aliases = aliases.where(AliasRow.name == name)
        plans = plans.where(TrafficRow.name == name)
    pointed = {row.name: row for row in session.execute(aliases)}
    planned = {row.name: row.plan for row in session.execute(plans)}
    rows = session.execute(versions).all()
    for owner, found in groupby(rows, key=lambda row: row[0]):
        alias = pointed.get(owner)
        yield NameRecord(
            owner,
            live=alias.digest if alias is not None else None,
            previous=alias.previous_digest if alias is not None else None,
            plan=planned.get(owner),
            versions=tuple(
                VersionRecord(AdapterVersion(owner, digest), rank, size, base, source, at, pinned, loaded)
                for _, digest, rank, size, base, source, at, pinned, loaded in found
            ),
        )
