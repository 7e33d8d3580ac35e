"""What the verbs on adapters answer."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.name import AdapterVersion
from adapters.report import CheckReport
from serve.lifecycle.version import ManagedVersion


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What `load` did."""

    managed: ManagedVersion
    created: bool  # False: that very version answered already, under the name that was asked for
    replaced: AdapterVersion | None  # what the alias meant before
    report: CheckReport


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """What `promote` or `rollback` did."""

    managed: ManagedVersion  # what the alias means now
    moved: bool  # False: it meant that version already
    left: AdapterVersion | None  # what it meant before; `rollback` goes back there
