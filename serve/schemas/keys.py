"""`/admin/keys`: what a key may do, and what is told of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from adapters.registry.keys import KeyRecord, NewKey
from serve.access.api_key import FreshKey
from serve.schemas.sampling import MAX_TOKENS, PlainText, StrictModel

KEY_ID_PATTERN = r"^[0-9a-f]{16}$"
# A name, or a pattern with * for any text and ? for any character.
ADAPTER_PATTERN = r"^[a-z0-9*?][a-z0-9*?._-]{0,63}$"
TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
LABEL_PATTERN = r"^[^\x00-\x1f\x7f]{1,128}$"
MAX_ADAPTERS = 256
MAX_EXPIRY_SECONDS = 10 * 366 * 86_400

AdapterPattern = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=ADAPTER_PATTERN)]
KeyState = Literal["active", "expired", "revoked"]


class KeyBody(StrictModel):
    """Make a key."""

    label: Annotated[PlainText, StringConstraints(min_length=1, max_length=128, pattern=LABEL_PATTERN)] = (
        Field(description="For people: what the key is for.", examples=["web shop"])
    )
    tenant: Annotated[str, StringConstraints(max_length=64, pattern=TENANT_PATTERN)] | None = Field(
        None,
        description="Whose key it is: keys of one tenant share a fair share of the engine, and a prefix cache. "
        "Left out: nobody else's.",
        examples=["acme"],
    )
    admin: bool = Field(False, description="May use the admin API.")
    metrics: bool = Field(False, description="May read /metrics where that needs a key.")
    adapters: Annotated[list[AdapterPattern], Field(max_length=MAX_ADAPTERS)] | None = Field(
        None,
        description="Names that may be used, and patterns such as `risk*`; `base` is the base, which no pattern "
        "means. Left out: all, and the base. An empty list: none.",
        examples=[["risk*", "base"]],
    )
    weight: float = Field(1.0, ge=0.01, le=100, description="Share of the engine, relative to other tenants.")
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000, description="At most so many.")
    tokens_per_minute: int | None = Field(
        None, ge=1, le=1_000_000_000, description="At most so many tokens of prompts and answers."
    )
    concurrency: int | None = Field(None, ge=1, le=100_000, description="Requests at once, waiting ones too.")
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="Longest answer, in tokens.")
    expires_in_seconds: int | None = Field(
        None, ge=1, le=MAX_EXPIRY_SECONDS, description="Left out: until it is revoked."
    )

    def new_key(self, fresh: FreshKey) -> NewKey:
        """The key for the registry, valid from now."""
        expires = self.expires_in_seconds
        as_given = self.model_dump(exclude={"tenant", "adapters", "expires_in_seconds"})
        return NewKey(
            **as_given,
            id=fresh.id,
            digest=fresh.digest,
            tenant=self.tenant if self.tenant is not None else f"key:{fresh.id}",
            adapters=tuple(self.adapters) if self.adapters is not None else None,
            expires_at=datetime.now(UTC) + timedelta(seconds=expires) if expires is not None else None,
        )


class KeyView(BaseModel):
    """One key, without the key."""

    id: str
    label: str
    tenant: str
    state: KeyState
    admin: bool
    metrics: bool
    adapters: list[str] | None = Field(description="null: all, and the base.")
    weight: float
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    max_tokens: int | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class CreatedKey(KeyView):
    """A key that was just made."""

    key: str = Field(description="The key itself. It is not kept, and never shown again.")


class KeyList(BaseModel):
    """All keys, revoked ones too, newest first."""

    keys: list[KeyView]


def key_view(record: KeyRecord) -> KeyView:
    """A key as the API shows it."""
    known = asdict(record)
    return KeyView.model_validate({**known.pop("key"), **known, "state": key_state(record)})


def key_state(record: KeyRecord) -> KeyState:
    """Whether the key is good now."""
    if record.revoked_at is not None:
        return "revoked"
    expires_at = record.key.expires_at
    return "expired" if expires_at is not None and expires_at <= datetime.now(UTC) else "active"
