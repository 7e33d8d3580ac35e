"""What the registry hands out: plain frozen values, free of any database session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from adapters.name import AdapterVersion


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be added. `source` is a label for people, never a path of this machine."""

    version: AdapterVersion
    rank: int
    num_bytes: int
    base_fingerprint: str
    source: str


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A known version."""

    version: AdapterVersion
    rank: int
    num_bytes: int
    base_fingerprint: str
    source: str
    created_at: datetime
    pinned: bool = False
    loaded: bool = False  # kept in memory without an alias, until one has come by


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """The version that the alias `version.name` should serve."""

    version: AdapterVersion
    updated_at: datetime
    previous_digest: str | None = None  # what it served before


@dataclass(frozen=True, slots=True)
class NameRecord:
    """All that is desired of one name. Digests are whole."""

    name: str
    live: str | None = None  # digest that the alias should mean
    previous: str | None = None  # digest that it meant before
    plan: str | None = None  # JSON of the traffic plan
    versions: tuple[VersionRecord, ...] = ()  # oldest first

    @property
    def known(self) -> bool:
        """Whether the registry has anything of that name."""
        return bool(self.versions)

    def get(self, digest: str | None) -> VersionRecord | None:
        """The version with that digest."""
        return next((record for record in self.versions if record.version.digest == digest), None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The desired state of all names at one moment, or a little later."""

    revision: int
    names: Mapping[str, NameRecord]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done or refused, to be written down: who, what, to which version, how it ended."""

    actor: str
    action: str
    outcome: str
    name: str | None = None
    digest: str | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event as it was written down. `id` grows with time."""

    id: int
    at: datetime
    event: Event
