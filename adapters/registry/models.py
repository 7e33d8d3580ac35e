"""The registry's tables. A change here needs a migration next to it; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

NAME_LENGTH = 64
DIGEST_LENGTH = 64
LABEL_LENGTH = 1024


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, in UTC in the database and aware in Python, also where the database keeps no time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Aware to naive UTC; a naive value is refused, because nobody can tell which moment it is."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Naive UTC to aware."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """All tables of the registry."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class VersionRow(Base):
    """One immutable version. `short` is the first eight digits of the digest, unique per name.

    `pinned` and `loaded` versions are kept in memory although no alias means them: until they are unpinned, or
    until the alias has come by and gone on.
    """

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("name", "short"), Index(None, "digest"))

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH), primary_key=True)
    short: Mapped[str] = mapped_column(String(8))
    rank: Mapped[int]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    base_fingerprint: Mapped[str] = mapped_column(String(256))
    source: Mapped[str] = mapped_column(String(LABEL_LENGTH))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    pinned: Mapped[bool] = mapped_column(server_default=false(), default=False)
    loaded: Mapped[bool] = mapped_column(server_default=false(), default=False)


class AliasRow(Base):
    """The version that an alias should serve now, and the one that it served before."""

    __tablename__ = "aliases"
    __table_args__ = (ForeignKeyConstraint(["name", "digest"], ["versions.name", "versions.digest"]),)

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    previous_digest: Mapped[str | None] = mapped_column(String(DIGEST_LENGTH))


class TrafficRow(Base):
    """How the requests of a name are shared, as JSON (serve/lifecycle/traffic.py)."""

    __tablename__ = "traffic"

    name: Mapped[str] = mapped_column(String(NAME_LENGTH), primary_key=True)
    plan: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class StateRow(Base):
    """How often something was changed: row 1 the desired state, row 2 the API keys."""

    __tablename__ = "state"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)


class KeyRow(Base):
    """One API key, without the key: `digest` is its sha256."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    digest: Mapped[str] = mapped_column(String(DIGEST_LENGTH))
    label: Mapped[str] = mapped_column(String(128))
    tenant: Mapped[str] = mapped_column(String(64))
    admin: Mapped[bool]
    metrics: Mapped[bool]
    adapters: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    weight: Mapped[float] = mapped_column(Double)
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    concurrency: Mapped[int | None]
    max_tokens: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(256))
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class EventRow(Base):
    """Something that was done, or refused. Rows are only added; those of old steps of versions go (events.py)."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "name", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    actor: Mapped[str] = mapped_column(String(256))
    action: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    digest: Mapped[str | None] = mapped_column(String(DIGEST_LENGTH))
    outcome: Mapped[str] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


class OperationRow(Base):
    """One operation of the admin API; forgotten a day after its end."""

    __tablename__ = "operations"
    __table_args__ = (UniqueConstraint("actor", "key"), Index(None, "started_at"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    instance: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    name: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    actor: Mapped[str] = mapped_column(String(256))
    request_id: Mapped[str] = mapped_column(String(64))
    key: Mapped[str | None] = mapped_column(String(128))
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    phases: Mapped[list[Any]] = mapped_column(JSON)
    status: Mapped[int | None]
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    touched_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
