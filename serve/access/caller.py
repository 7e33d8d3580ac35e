"""Who sends a request, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

BASE_NAME = "base"  # stands for the base among the names that a key may use; no adapter may be called so


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may take of this gateway; None: no limit of its own."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # prompt and answer
    concurrency: int | None = None  # requests at once
    max_tokens: int | None = None  # of one answer


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller, for the length of a request."""

    name: str  # for the audit log and the metrics: "local", "admin", "key:4f1c09ab8d2e7701"
    tenant: str = ""  # whose requests share a fair share of the queue, and a prefix cache
    admin: bool = False
    metrics: bool = False  # may read /metrics where it is not open to all
    adapters: frozenset[str] | None = (
        None  # names or patterns such as "risk*", BASE_NAME among them; None: all
    )
    key_id: str | None = None
    weight: float = 1.0  # share in the fair queue, relative to other tenants
    limits: KeyLimits = KeyLimits()

    def may_use(self, alias: str | None) -> bool:
        """Whether this caller may be answered by an adapter (None: by the base, which no pattern means)."""
        if self.adapters is None:
            return True
        if alias is None:
            return BASE_NAME in self.adapters
        return alias in self.adapters or any(fnmatchcase(alias, pattern) for pattern in self.adapters)


# Whoever asks where no key is needed.
ANYONE = Caller("local", admin=False)
