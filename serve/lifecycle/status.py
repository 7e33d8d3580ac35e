"""Desired and actual state side by side, as plain values for whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from adapters.name import AdapterVersion
from adapters.registry.records import NameRecord, VersionRecord
from serve.lifecycle.board import AdapterBoard
from serve.lifecycle.desired import read_plan, wanted
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


def describe_name(record: NameRecord, board: AdapterBoard) -> AdapterStatus | None:
    """What is wanted of a name beside what it is here; None when there is neither."""
    name = record.name
    here = {managed.version.digest: managed for managed in board.versions(name)}
    if not record.known and not here:
        return None
    behind, plan = board.behind(name), read_plan(record)
    want = {*wanted(record)}
    versions = [
        _describe_version(kept.version, kept, here.get(kept.version.digest), want, plan, behind)
        for kept in record.versions
    ]
    versions += [
        _describe_version(managed.version, None, managed, want, plan, behind)
        for digest, managed in here.items()
        if record.get(digest) is None
    ]
    answers = behind is not None and behind.state is AdapterState.LIVE
    reasons = [
        f"{one.version}: {one.reason or one.state}"
        for one in versions
        if one.wanted and one.state is not AdapterState.LIVE
    ]
    previous = record.get(record.previous)
    means = behind.version.digest if behind is not None else None
    return AdapterStatus(
        name=name,
        desired=AdapterVersion(name, record.live) if record.live is not None else None,
        live=behind.version if behind is not None and answers else None,
        previous=previous.version if previous is not None else None,
        settled=means == record.live and not reasons,
        reason="; ".join(reasons) or None,
        traffic=plan,
        versions=tuple(versions),
    )


def _describe_version(
    version: AdapterVersion,
    kept: VersionRecord | None,
    managed: ManagedVersion | None,
    want: set[str],
    plan: TrafficPlan | None,
    behind: ManagedVersion | None,
) -> VersionStatus:
    digest = version.digest
    facts = kept if kept is not None else managed.facts if managed is not None else None
    return VersionStatus(
        version=version,
        rank=facts.rank if facts is not None else 0,
        num_bytes=facts.num_bytes if facts is not None else 0,
        source=facts.source if facts is not None else "",
        created_at=kept.created_at if kept is not None else None,
        wanted=digest in want,
        pinned=kept is not None and kept.pinned,
        share=plan.shares.get(digest, 0.0) if plan is not None else 0.0,
        shadow=plan.shadow.get(digest, 0.0) if plan is not None else 0.0,
        state=managed.state if managed is not None else AdapterState.REGISTERED,
        reason=managed.reason if managed is not None else None,
        live=managed is not None and managed is behind,
        managed=managed,
    )
