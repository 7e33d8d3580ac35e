"""How the requests for one name are shared between its versions: canaries, a shadow, and who sticks to what.

A plan stands beside the version that the alias means, the stable one, which gets whatever no canary takes.
Versions are named by their digest. A request is placed by weighted rendezvous hashing: each version draws one
number from the request's key, and a larger share makes it likelier to win. The same key is therefore answered by
the same version on every replica and after a restart, a canary whose share grows loses none of the keys that it
had, and two canaries mostly draw different keys.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import secrets
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_CANARIES = 8
# Shares are written as decimal fractions, whose sum may miss 1 by rounding.
_ROUNDING = 1e-9
_NOBODY = ""  # stands among the shadows for a request that is not copied

Sticky = Literal["none", "session", "key"]
VersionDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
Share = Annotated[float, Field(ge=1e-6, le=1)]


class _Plain(BaseModel):
    """Unknown fields, wrong types, NaN and infinity are refused; never changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Guard(_Plain):
    """When a canary is taken back."""

    min_requests: int = Field(
        20, ge=1, le=1_000_000, description="Requests within the window before a canary is judged by them."
    )
    max_error_rate: float | None = Field(
        0.05,
        ge=0,
        lt=1,
        description="Share of answers that may fail by the server's fault. null: not judged.",
    )
    max_ttft_ratio: float | None = Field(
        2.0, gt=1, le=1000, description="Time to the first token over the stable version's. null: not judged."
    )
    probe_seconds: float | None = Field(
        None,
        ge=1,
        le=86_400,
        description="Seconds between probes of the canary. null: only when it is loaded.",
    )
    window_seconds: float = Field(
        300.0, ge=1, le=86_400, description="Seconds; older answers are not judged any more."
    )


class Rollout(_Plain):
    """How a canary that does well gets more, step by step, until it is the stable version."""

    steps: list[Share] = Field(
        min_length=1,
        max_length=32,
        description="Shares to take in turn, each larger than the one before; after the last it is promoted.",
        examples=[[0.01, 0.1, 0.5]],
    )
    step_seconds: float = Field(300.0, ge=1, le=604_800, description="Seconds that each step lasts at least.")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if any(later <= earlier for earlier, later in itertools.pairwise(self.steps)):
            raise ValueError("each of the steps must be larger than the one before")
        return self

    def after(self, share: float) -> float | None:
        """The step above `share`; None after the last."""
        return next((step for step in self.steps if step > share + _ROUNDING), None)


class TrafficPlan(_Plain):
    """Shares of one name's requests, beside its stable version."""

    shares: dict[VersionDigest, Share] = Field(
        default_factory=dict,
        max_length=MAX_CANARIES,
        description="Canaries: share of the requests by version digest. The rest goes to the stable version.",
    )
    shadow: dict[VersionDigest, Share] = Field(
        default_factory=dict,
        max_length=MAX_CANARIES,
        description="Shadows: share of the requests that a version gets a copy of, unseen by the client.",
    )
    sticky: Sticky = Field(
        "none", description="What keeps a caller on one version: nothing, the session header, or the API key."
    )
    guard: Guard | None = Field(None, description="When a canary is taken back. null: never.")
    rollout: Rollout | None = Field(
        None,
        description="How the one canary gets more, if its guard finds nothing. null: it keeps its share.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for field in ("shares", "shadow"):
            total = math.fsum(getattr(self, field).values())
            if total > 1 + _ROUNDING:
                raise ValueError(f"the {field} add up to {total:g}; they must not exceed 1")
        for one, other in itertools.combinations([*self.shares, *self.shadow], 2):
            if one.startswith(other) or other.startswith(one):
                raise ValueError(f"{one[:8]} is named twice; a version is one canary or one shadow")
        if self.rollout is not None and (len(self.shares) != 1 or self.guard is None):
            raise ValueError("a rollout needs one canary and a guard that judges it")
        return self

    @property
    def versions(self) -> frozenset[str]:
        """Digests of every version that the plan names."""
        return frozenset(self.shares) | frozenset(self.shadow)

    def to_json(self) -> str:
        """The plan as the registry keeps it."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a plan back. Raises pydantic.ValidationError (a ValueError)."""
        return cls.model_validate_json(text)


@dataclass(frozen=True, slots=True)
class Choice:
    """Where one request goes."""

    version: str  # the stable version's digest or a canary's
    shadow: str | None = None  # the version that gets a copy


def request_key(plan: TrafficPlan, *, session: str | None, caller: str | None) -> str:
    """What places a request: the session or the caller's key where the plan asks for it and the request has it.

    Otherwise a key drawn for this request alone.
    """
    sticky = {"none": None, "session": session, "key": caller}[plan.sticky]
    return f"{plan.sticky}:{sticky}" if sticky is not None else secrets.token_hex(16)


def choose(plan: TrafficPlan, stable: str, key: str, *, available: Container[str] | None = None) -> str:
    """The version that answers a request with that key: `stable` or one of the plan's canaries.

    A canary that is not in `available` (None: all are) is answered for by the stable version.
    """
    weights = {version: share for version, share in plan.shares.items() if version != stable}
    weights[stable] = max(0.0, 1.0 - math.fsum(weights.values()))
    chosen = _winner(weights, key, "answer")
    return chosen if available is None or chosen in available else stable


def choose_shadow(
    plan: TrafficPlan, answered_by: str, key: str, *, available: Container[str] | None = None
) -> str | None:
    """The version that gets a copy of a request with that key, if any; never the one that answers it."""
    weights = {**plan.shadow, _NOBODY: max(0.0, 1.0 - math.fsum(plan.shadow.values()))}
    chosen = _winner(weights, key, "shadow")
    if chosen in (_NOBODY, answered_by) or (available is not None and chosen not in available):
        return None
    return chosen


def place(
    plan: TrafficPlan,
    stable: str,
    *,
    session: str | None = None,
    caller: str | None = None,
    available: Container[str] | None = None,
) -> Choice:
    """Where one request of `caller` in `session` goes, both parts at once."""
    key = request_key(plan, session=session, caller=caller)
    version = choose(plan, stable, key, available=available)
    # A shadow is a sample of the requests, not of the callers: drawn anew each time.
    shadow = choose_shadow(plan, version, secrets.token_hex(16), available=available) if plan.shadow else None
    return Choice(version, shadow)


def _winner(weights: Mapping[str, float], key: str, purpose: str) -> str:
    """Weighted rendezvous: the smallest of exponential draws with these rates. One weight must be positive."""
    return min(
        (version for version, weight in weights.items() if weight > 0.0),
        key=lambda version: -math.log(_drawn(purpose, version, key)) / weights[version],
    )


def _drawn(purpose: str, version: str, key: str) -> float:
    """A number in (0, 1) that is always the same for the same arguments."""
    text = f"{purpose}\x00{version}\x00{key}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 11
    return (number + 0.5) / 2**53
