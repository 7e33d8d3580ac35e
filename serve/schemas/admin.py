"""The admin API: what may be asked and what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from serve.lifecycle.state import AdapterState
from serve.lifecycle.version import ManagedVersion
from serve.schemas.sampling import StrictModel

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"


class LoadBody(StrictModel):
    """Load an adapter under a name."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="Public name: a-z, 0-9, '.', '_' and '-', at most 64 characters.",
        examples=["risk"],
        # Documented here and refused by the name's own rule, which says more than "does not match".
        json_schema_extra={"pattern": NAME_PATTERN},
    )
    source: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="Folder with adapter_config.json and adapter_model.safetensors, inside the adapter root.",
        examples=["risk"],
    )


class VersionView(BaseModel):
    """One version of an adapter."""

    version: str
    digest: str
    state: AdapterState
    reason: str | None
    live: bool
    in_flight: int
    rank: int
    bytes: int
    source: str
    since_unix_seconds: float
    last_used_unix_seconds: float | None
    phase_seconds: dict[str, float]


class AdapterView(BaseModel):
    """One name and its versions."""

    name: str
    live: str | None
    versions: list[VersionView]


class AdapterList(BaseModel):
    """All adapters, and how many fit."""

    base: str
    adapters: list[AdapterView]
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    resident: int


class Finding(BaseModel):
    """A warning of the check."""

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
    created: bool
    replaced: str | None
    warnings: list[Finding]
    probe: ProbeView | None = Field(description="null: not probed since this server started.")


class UnloadAnswer(BaseModel):
    """What unloading did."""

    name: str
    unloaded: list[str]


def version_view(managed: ManagedVersion, *, live: bool) -> VersionView:
    """A version as the API shows it: without paths."""
    return VersionView(
        version=str(managed.version),
        digest=managed.version.digest,
        state=managed.state,
        reason=managed.reason,
        live=live,
        in_flight=managed.in_flight,
        rank=managed.facts.rank,
        bytes=managed.facts.num_bytes,
        source=managed.facts.source,
        since_unix_seconds=managed.since,
        last_used_unix_seconds=managed.last_used,
        phase_seconds=managed.phase_seconds,
    )
