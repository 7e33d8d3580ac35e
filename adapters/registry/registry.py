"""The registry's verbs. Blocking, and safe to call from several threads and processes.

It knows what should be served, not what is: the gateway compares the two. Moving an alias is compare-and-set,
so of two that move it at the same time one fails instead of both believing they won.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from adapters.errors import (
    AdapterConflictError,
    AdapterNotFoundError,
    RegistryError,
)
from adapters.name import AdapterReference, AdapterVersion
from adapters.registry import desired, events
from adapters.registry.database import TIMEOUT_SECONDS, WRITES, connect
from adapters.registry.explain import explained
from adapters.registry.migrate import upgrade
from adapters.registry.models import AliasRow, VersionRow
from adapters.registry.records import (
    AliasRecord,
    Event,
    EventRecord,
    NameRecord,
    NewVersion,
    Snapshot,
    VersionRecord,
)


class Registry:
    """Desired state at `url`. Use it between `open()` and `close()`, or in a `with` statement."""

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """`timeout_seconds` is how long PostgreSQL may take for a statement."""
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._engine: Engine | None = None

    def open(self) -> None:
        """Connect and bring the tables up to date. Calling it again does nothing."""
        if self._engine is not None:
            return
        engine = connect(self._url, timeout_seconds=self._timeout_seconds)
        try:
            with explained():
                upgrade(engine.execution_options(**{WRITES: True}))
        except RegistryError:
            engine.dispose()
            raise
        self._engine = engine

    def close(self) -> None:
        """Give all connections back. Calling it again does nothing."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_version(self, new: NewVersion) -> VersionRecord:
        """Add a version and return it; of one that is known already only the base it was checked on changes.

        Raises AdapterConflictError when another version of that name shares the eight digits of its short
        form: the engine could not tell the two apart.
        """
        version = new.version
        with self._change() as session:
            row = session.get(VersionRow, (version.name, version.digest))
            changed = row is None or row.base_fingerprint != new.base_fingerprint
            if row is None:
                row = VersionRow(
                    name=version.name,
                    digest=version.digest,
                    short=version.short,
                    rank=new.rank,
                    num_bytes=new.num_bytes,
                    base_fingerprint=new.base_fingerprint,
                    source=new.source,
                    created_at=_now(),
                )
                try:
                    with session.begin_nested():
                        session.add(row)
                except IntegrityError as error:
                    row = session.get(VersionRow, (version.name, version.digest))
                    if row is None:
                        raise AdapterConflictError(
                            f"Another version of {version.name!r} is called {version} as well. "
                            "Remove it first, or change the adapter by training one step more."
                        ) from error
            row.base_fingerprint = new.base_fingerprint
            if changed:
                desired.count_change(session)
            return _version_record(row)

    def get(self, reference: AdapterReference) -> VersionRecord:
        """The version that a reference means: the alias's current one, or the pinned one."""
        with self._read() as session:
            query = select(VersionRow).where(VersionRow.name == reference.name)
            if reference.digest_prefix is None:
                query = query.join(
                    AliasRow, (AliasRow.name == VersionRow.name) & (AliasRow.digest == VersionRow.digest)
                )
            else:
                query = query.where(VersionRow.digest.startswith(reference.digest_prefix, autoescape=True))
            row = session.scalars(query).one_or_none()
            if row is None:
                raise AdapterNotFoundError(f"There is no adapter {str(reference)!r}.")
            return _version_record(row)

    def list_versions(self, name: str | None = None) -> list[VersionRecord]:
        """All versions, or those of one name, oldest first within a name."""
        query = select(VersionRow).order_by(VersionRow.name, VersionRow.created_at, VersionRow.digest)
        with self._read() as session:
            rows = session.scalars(query if name is None else query.where(VersionRow.name == name))
            return [_version_record(row) for row in rows]

    def remove_version(self, version: AdapterVersion) -> bool:
        """Forget a version; return False when it was not known. AdapterConflictError while it is live."""
        with self._change() as session:
            is_live = exists().where(AliasRow.name == version.name, AliasRow.digest == version.digest)
            try:
                removed = session.execute(
                    delete(VersionRow)
                    .where(VersionRow.name == version.name, VersionRow.digest == version.digest, ~is_live)
                    .returning(VersionRow.digest)
                ).first()
            except IntegrityError as error:  # the alias was moved here between the two halves
                raise _still_live(version) from error
            if removed is None and session.scalar(select(is_live)):
                raise _still_live(version)
            if removed is not None:
                desired.count_change(session)
            return removed is not None

    def forget_name(self, name: str) -> list[AdapterVersion]:
        """Drop a name with its alias, traffic and versions in one step; returns the versions, oldest first."""
        with self._change() as session:
            return desired.forget(session, name)

    def holds_digest(self, digest: str) -> bool:
        """Whether any name has a version of that content."""
        with self._read() as session:
            return (
                session.scalar(select(VersionRow.name).where(VersionRow.digest == digest).limit(1))
                is not None
            )

    def set_pinned(self, version: AdapterVersion, pinned: bool) -> bool:
        """Pin a version or take the pin back; False when it was so. Raises AdapterNotFoundError."""
        with self._change() as session:
            return desired.set_flag(session, version, "pinned", pinned)

    def set_loaded(self, version: AdapterVersion, loaded: bool) -> bool:
        """Keep a version in memory without an alias, or no more; False when it was so.

        Raises AdapterNotFoundError.
        """
        with self._change() as session:
            return desired.set_flag(session, version, "loaded", loaded)

    def set_plan(self, name: str, plan: str | None) -> bool:
        """Keep the traffic plan of a name, as JSON; None drops it. False when it was so."""
        with self._change() as session:
            return desired.set_plan(session, name, plan)

    def revision(self) -> int:
        """A number that grows with every change of the desired state."""
        with self._read() as session:
            return desired.read_revision(session)

    def snapshot(self) -> Snapshot:
        """The whole desired state, at least as new as its revision."""
        with self._read() as session:
            return desired.read_snapshot(session)

    def name(self, name: str) -> NameRecord:
        """The desired state of one name; of an unknown one, an empty record."""
        with self._read() as session:
            return desired.read_name(session, name)

    def list_aliases(self) -> list[AliasRecord]:
        """What should be live, by name."""
        with self._read() as session:
            return [_alias_record(row) for row in session.scalars(select(AliasRow).order_by(AliasRow.name))]

    def set_alias(self, version: AdapterVersion, *, expected_digest: str | None) -> AliasRecord:
        """Point the alias at `version` if it points at `expected_digest` now (None: if it does not exist).

        A move ends the name's traffic plan. Setting an alias to where it points already succeeds whatever was
        expected. Raises
        AdapterConflictError when somebody else moved it, AdapterNotFoundError when the version is not known.
        """
        now = _now()
        with self._change() as session:
            row = session.get(VersionRow, (version.name, version.digest))
            if row is None:
                raise AdapterNotFoundError(f"Version {version} is not registered. Load the adapter first.")
            current = session.get(AliasRow, version.name)
            if current is not None and current.digest == version.digest:
                return _alias_record(current)
            previous = current.digest if current is not None else None
            if not _move_alias(session, version, expected_digest, now):
                raise _moved_meanwhile(version.name, expected_digest, current)
            row.loaded = False  # the alias keeps it now, and nothing does when the alias goes on
            # It was made beside a version that the alias has just left.
            desired.set_plan(session, version.name, None)
            desired.count_change(session)
            return AliasRecord(version, now, previous)

    def append_event(self, event: Event) -> EventRecord:
        """Write an event down, with the time of now."""
        return self.append_events([event])[0]

    def append_events(self, new: Sequence[Event]) -> list[EventRecord]:
        """Write events down in one step, in their order, with the time of now."""
        with self._write() as session:
            return events.add_events(session, new)

    def list_events(
        self,
        *,
        name: str | None = None,
        digest: str | None = None,
        actor: str | None = None,
        action: str | None = None,
        without_actions: Sequence[str] = (),
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[EventRecord]:
        """The newest events first, at most `limit`; `before_id` continues an earlier list."""
        with self._read() as session:
            return events.newest_events(
                session,
                name=name,
                digest=digest,
                actor=actor,
                action=action,
                without_actions=without_actions,
                before_id=before_id,
                limit=limit,
            )

    def events_after(self, after_id: int, *, limit: int = 100) -> list[EventRecord]:
        """The oldest events first, of those behind `after_id`; at most `limit`."""
        with self._read() as session:
            return events.events_behind(session, after_id, limit=limit)

    def last_event_id(self) -> int:
        """The id of the newest event; 0 where there is none."""
        with self._read() as session:
            return events.last_event_id(session)

    def prune_events(self, *, action: str, keep: int) -> int:
        """Forget events of one action that are not among the newest `keep` of all, some thousands at a time.

        Returns how many went.
        """
        with self._write() as session:
            return events.prune_events(session, action=action, keep=keep)

    def session(self, *, writes: bool) -> AbstractContextManager[Session]:
        """A transaction for tables that have a class of their own. Raises RegistryError."""
        return self._write() if writes else self._read()

    @contextlib.contextmanager
    def _read(self) -> Iterator[Session]:
        with explained(), Session(self._opened()) as session:
            yield session

    @contextlib.contextmanager
    def _write(self) -> Iterator[Session]:
        engine = self._opened().execution_options(**{WRITES: True})
        with explained(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextlib.contextmanager
    def _change(self) -> Iterator[Session]:
        """A transaction that may change the desired state; only one at a time goes on."""
        with self._write() as session:
            desired.lock_state(session)
            yield session

    def _opened(self) -> Engine:
        if self._engine is None:
            raise RegistryError("The registry is not open. Call open() first, or use it in a with statement.")
        return self._engine


def _move_alias(
    session: Session, version: AdapterVersion, expected_digest: str | None, now: datetime
) -> bool:
    """Whether the alias was where it was expected, and so was moved."""
    if expected_digest is None:
        try:
            with session.begin_nested():
                values = {"name": version.name, "digest": version.digest, "updated_at": now}
                session.execute(insert(AliasRow).values(values))
        except IntegrityError:
            return False
        return True
    statement = (
        update(AliasRow)
        .where(AliasRow.name == version.name, AliasRow.digest == expected_digest)
        .values(digest=version.digest, updated_at=now, previous_digest=expected_digest)
        .returning(AliasRow.name)
    )
    return session.execute(statement).first() is not None


def _now() -> datetime:
    return datetime.now(UTC)


def _version_record(row: VersionRow) -> VersionRecord:
    return VersionRecord(
        AdapterVersion(row.name, row.digest),
        rank=row.rank,
        num_bytes=row.num_bytes,
        base_fingerprint=row.base_fingerprint,
        source=row.source,
        created_at=row.created_at,
        pinned=row.pinned,
        loaded=row.loaded,
    )


def _alias_record(row: AliasRow) -> AliasRecord:
    return AliasRecord(AdapterVersion(row.name, row.digest), row.updated_at, row.previous_digest)


def _still_live(version: AdapterVersion) -> AdapterConflictError:
    return AdapterConflictError(
        f"Version {version} is what {version.name!r} serves. Move or drop the alias before removing it."
    )


def _moved_meanwhile(
    name: str, expected_digest: str | None, current: AliasRow | None
) -> AdapterConflictError:
    expected = "unset" if expected_digest is None else expected_digest[:8]
    found = "unset" if current is None else current.digest[:8]
    return AdapterConflictError(
        f"Alias {name!r} was changed by somebody else: expected {expected}, found {found}. "
        "Look at it again and repeat what is still wanted."
    )
