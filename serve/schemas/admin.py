"""The admin API on adapters: what may be asked and what is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from adapters.report import Problem
from serve.lifecycle.state import AdapterState
from serve.lifecycle.status import AdapterStatus, VersionStatus
from serve.lifecycle.traffic import TrafficPlan
from serve.lifecycle.verdict import ProbeResult
from serve.schemas.sampling import StrictModel

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
# Of a version, in a path: its digest or the beginning of it.
DIGEST_PATTERN = r"^[0-9a-f]{8,64}$"
VERSION_PATTERN = r"^([a-z0-9][a-z0-9._-]{0,63}@)?[0-9a-f]{8,64}$"

EXPECTED_PATTERN = r"^(none|([a-z0-9][a-z0-9._-]{0,63}@)?[0-9a-f]{8,64})$"

VersionText = Annotated[str, StringConstraints(min_length=8, max_length=129, pattern=VERSION_PATTERN)]
ExpectedText = Annotated[str, StringConstraints(min_length=4, max_length=129, pattern=EXPECTED_PATTERN)]
_EXPECTED_LIVE = (
    "Version that the name has to mean now: `risk@3f2a91c0`, a digest, or `none`. Otherwise 409, and nothing is "
    "done."
)


class ValidateBody(StrictModel):
    """Check an adapter without loading it."""

    source: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="Folder with adapter_config.json and adapter_model.safetensors inside the adapter root, or a "
        "URL below one of --allowed-sources.",
        examples=["risk"],
    )


class LoadBody(ValidateBody):
    """Load an adapter under a name."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="Public name: a-z, 0-9, '.', '_' and '-', at most 64 characters.",
        examples=["risk"],
        # Documented here and refused by the name's own rule, which says more than "does not match".
        json_schema_extra={"pattern": NAME_PATTERN},
    )
    promote: bool = Field(
        True, description="false: load it under its version's name alone, and leave the name where it is."
    )
    expected_live: ExpectedText | None = Field(None, description=_EXPECTED_LIVE)


class PromoteBody(StrictModel):
    """Let the name mean another version."""

    version: VersionText = Field(
        description="Version: `3f2a91c0` or `risk@3f2a91c0`.", examples=["risk@3f2a91c0"]
    )
    expected_live: ExpectedText | None = Field(None, description=_EXPECTED_LIVE)


class NoFields(StrictModel):
    """Nothing is asked for but the verb itself: `{}`, or no body."""


class VersionView(BaseModel):
    """One version of an adapter: what the registry says of it and what it is in this gateway."""

    version: str
    digest: str
    state: AdapterState = Field(description="`registered`: kept, and not in this engine.")
    reason: str | None
    live: bool = Field(description="The name means it.")
    wanted: bool = Field(
        description="It should be loaded: by the name, a pin, a share, or because it was asked for."
    )
    pinned: bool
    share: float = Field(
        description="Share of the name's requests by the traffic plan; the stable version: 0."
    )
    shadow: float = Field(description="Share of the requests that it gets a copy of.")
    in_flight: int
    rank: int
    bytes: int
    source: str
    created_at: str | None
    since_unix_seconds: float | None = Field(description="Of the last step; null: not in this engine.")
    last_used_unix_seconds: float | None
    phase_seconds: dict[str, float]


class AdapterView(BaseModel):
    """One name and its versions, desired and actual."""

    name: str
    desired: str | None = Field(description="The version that the name should mean.")
    live: str | None = Field(description="The version that the name means in this gateway.")
    previous: str | None = Field(description="Where `rollback` goes.")
    settled: bool = Field(description="This gateway is as the registry wants it.")
    reason: str | None = Field(description="Why it is not.")
    traffic: TrafficPlan | None
    versions: list[VersionView]


class AdapterList(BaseModel):
    """All adapters, and how many fit."""

    base: str
    adapters: list[AdapterView]
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    resident: int = Field(
        description="How many the engine holds. While it computes, what it said last: it is not waited for."
    )


class Finding(BaseModel):
    """One finding of the check."""

    code: str
    message: str
    subject: str


class ProbeView(BaseModel):
    """What the probe after loading measured; see docs/api.md."""

    kind: Literal["replay", "effect"]
    num_cases: int
    num_tokens: int
    max_difference_nats: float
    mean_difference_nats: float
    base_difference_nats: float
    limit: float
    difference: float | None
    slope: float | None
    fit: float | None
    seconds: float


class LoadAnswer(BaseModel):
    """What loading did."""

    adapter: AdapterView
    version: str = Field(description="The version that was loaded.")
    created: bool = Field(description="false: that very version answered already.")
    replaced: str | None
    warnings: list[Finding]
    probe: ProbeView | None = Field(description="null: not probed since this server started.")


class ValidateAnswer(BaseModel):
    """What the check found."""

    ok: bool = Field(description="It may be loaded.")
    problems: list[Finding]
    warnings: list[Finding]
    facts: dict[str, Any]


class MoveAnswer(BaseModel):
    """What promoting or going back did."""

    adapter: AdapterView
    version: str = Field(description="What the name means now.")
    moved: bool = Field(description="false: it meant that version already.")
    left: str | None = Field(description="What it meant before.")


class VersionAnswer(BaseModel):
    """What a verb on one version did."""

    adapter: AdapterView
    version: str
    changed: bool = Field(description="false: it was so already.")


class UnloadAnswer(BaseModel):
    """What unloading did."""

    name: str
    unloaded: list[str]


class StandingView(BaseModel):
    """How a version of a name under a guard does, by this gateway's answers within the guard's window."""

    version: str
    canary: bool = Field(description="false: the stable version.")
    answers: int
    failures: int = Field(description="Of these, by the server's doing.")
    error_rate: float
    ttft_ratio: float | None = Field(
        description="Median time to the first token over the stable version's. null: one of them has no times."
    )


class TrafficAnswer(BaseModel):
    """How the requests of a name are shared."""

    name: str
    stable: str | None = Field(description="The version that gets whatever no canary takes.")
    traffic: TrafficPlan | None = Field(description="null: the stable version answers everything.")
    standings: list[StandingView] = Field(description="Of the versions that a guard watches.")


def adapter_fields(status: AdapterStatus) -> dict[str, Any]:
    """The fields of AdapterView, as plain values: a thousand of them are listed at once."""
    return {
        "name": status.name,
        "desired": _text(status.desired),
        "live": _text(status.live),
        "previous": _text(status.previous),
        "settled": status.settled,
        "reason": status.reason,
        "traffic": status.traffic.model_dump(mode="json") if status.traffic is not None else None,
        "versions": [version_fields(version) for version in status.versions],
    }


def version_fields(status: VersionStatus) -> dict[str, Any]:
    """The fields of VersionView: without paths."""
    managed = status.managed
    return {
        "version": str(status.version),
        "digest": status.version.digest,
        "state": str(status.state),
        "reason": status.reason,
        "live": status.live,
        "wanted": status.wanted,
        "pinned": status.pinned,
        "share": status.share,
        "shadow": status.shadow,
        "in_flight": managed.in_flight if managed is not None else 0,
        "rank": status.rank,
        "bytes": status.num_bytes,
        "source": status.source,
        "created_at": status.created_at.isoformat() if status.created_at is not None else None,
        "since_unix_seconds": managed.since if managed is not None else None,
        "last_used_unix_seconds": managed.last_used if managed is not None else None,
        "phase_seconds": dict(managed.phase_seconds) if managed is not None else {},
    }


def probe_fields(probe: ProbeResult | None) -> dict[str, Any] | None:
    """The fields of ProbeView."""
    return ProbeView.model_validate(probe, from_attributes=True).model_dump() if probe is not None else None


def finding_fields(problems: tuple[Problem, ...]) -> list[dict[str, Any]]:
    """The fields of each Finding."""
    return [{"code": p.code, "message": p.message, "subject": p.subject} for p in problems]


def _text(version: object | None) -> str | None:
    return str(version) if version is not None else None
