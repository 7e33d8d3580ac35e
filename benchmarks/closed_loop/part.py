"""Who is compared with whom, and how the load is sent to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.closed_loop.dialect import Dialect
from benchmarks.server import ServerSpec


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to send the load."""

    name: str
    title: str
    server: str
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class Part:
    """A comparison. With `together` all servers are up at once; else one at a time, started for each block."""

    name: str
    title: str
    servers: Sequence[ServerSpec]
    contenders: Sequence[Contender]
    baseline: str  # the contender that the others are set against
    together: bool
    settings: Mapping[str, str] = field(default_factory=dict)
