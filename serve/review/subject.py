"""What a reviewer is told about the request whose text it looks at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """One request under review."""

    request_id: str
    route: str
    caller: str  # Caller.name
    tenant: str
    adapter: str | None  # alias; None: the base
    version: str | None  # "risk@3f2a91c0"
