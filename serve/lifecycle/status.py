"""Desired and actual state side by side, as plain values for whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from adapters.name import AdapterVersion
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import TrafficPlan
from serve.lifecycle.version import ManagedVersion


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version: what the registry says of it and what it is in this gateway."""

    version: AdapterVersion
    rank: int
    num_bytes: int
    source: str
    created_at: datetime | None  # None: not in the registry, a leftover that drains or failed
    wanted: bool  # should be loaded: by the alias, a pin, a share, or because it was asked for
    pinned: bool
    share: float  # of the name's requests, by the traffic plan; 0 for the stable version
    shadow: float
    state: AdapterState  # REGISTERED: kept, and not in this engine
    reason: str | None
    live: bool  # the alias means it here
    managed: ManagedVersion | None  # None: not in this engine


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """One name."""

    name: str
    desired: AdapterVersion | None  # what the alias should mean
    live: AdapterVersion | None  # what it means here, and answers
    previous: AdapterVersion | None  # what `rollback` goes back to
    settled: bool  # this gateway is as the registry wants it
    reason: str | None  # why not
    traffic: TrafficPlan | None
    versions: tuple[VersionStatus, ...]  # oldest first
