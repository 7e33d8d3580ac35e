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


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """The version that the alias `version.name` should serve."""

    version: AdapterVersion
    updated_at: datetime


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
