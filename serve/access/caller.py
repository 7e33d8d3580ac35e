"""Who sends a request, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

BASE_NAME = "base"  # stands for the base among the names that a key may use


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

    name: str  # for the audit log and the metrics: "local", "admin", "key:4f1c09ab"
    tenant: str = ""  # whose requests share a fair share of the queue, and a prefix cache
    admin: bool = False
    adapters: frozenset[str] | None = None  # names that may be used, BASE_NAME among them; None: all
    key_id: str | None = None
    weight: float = 1.0  # share in the fair queue, relative to other tenants
    limits: KeyLimits = KeyLimits()

    def may_use(self, alias: str | None) -> bool:
        """Whether this caller may be answered by an adapter (None: by the base)."""
        return self.adapters is None or (BASE_NAME if alias is None else alias) in self.adapters


# Whoever asks where no key is needed.
ANYONE = Caller("local", admin=False)
