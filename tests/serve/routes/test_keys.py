"""`/admin/keys` over HTTP: statuses, shapes, and what is never shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from serve.schemas.keys import CreatedKey, KeyList, KeyView
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]


async def test_a_key_is_shown_once_and_then_only_what_it_may_do(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    asked = {
        "label": "web shop",
        "tenant": "acme",
        "adapters": ["risk*", "base"],
        "weight": 2.5,
        "requests_per_minute": 600,
        "tokens_per_minute": 60_000,
        "concurrency": 8,
        "max_tokens": 512,
        "expires_in_seconds": 3600,
    }
    response = await gateway.client.post("/admin/keys", json=asked)
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    created = CreatedKey.model_validate(response.json())
    for field, value in asked.items():
        if field != "expires_in_seconds":
            assert getattr(created, field) == value, field
    assert created.key.startswith(f"hsk_{created.id}_")
    assert (created.state, created.created_by, created.last_used_at) == ("active", "local", None)
    assert created.expires_at is not None
    assert 3500 < (created.expires_at - datetime.now(UTC)).total_seconds() <= 3600
    listed = (await gateway.client.get("/admin/keys")).json()
    one = (await gateway.client.get(f"/admin/keys/{created.id}")).json()
    assert KeyList.model_validate(listed).keys == [KeyView.model_validate(one)]
    assert "key" not in one
    assert one == {name: value for name, value in response.json().items() if name != "key"}


async def test_a_key_without_wishes_may_use_everything_and_is_a_tenant_of_its_own(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway()
    one, other = [(await gateway.client.post("/admin/keys", json={"label": "x"})).json() for _ in range(2)]
    assert one["tenant"] != other["tenant"]
    assert (one["adapters"], one["admin"], one["metrics"], one["expires_at"]) == (None, False, False, None)


async def test_revoking_is_for_good_and_can_be_repeated(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    created = (await gateway.client.post("/admin/keys", json={"label": "x"})).json()
    path = f"/admin/keys/{created['id']}"
    first = await gateway.client.delete(path)
    assert (first.status_code, first.json()["state"]) == (200, "revoked")
    again = await gateway.client.delete(path)
    assert again.json()["revoked_at"] == first.json()["revoked_at"]
    assert (await gateway.client.get(path)).json()["state"] == "revoked"
    unknown = await gateway.client.delete("/admin/keys/" + "0" * 16)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "key_not_found")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"label": ""},
        {"label": "x\n"},
        {"label": "x" * 129},
        {"label": "x", "unknown": 1},
        {"label": "x", "id": "0" * 16},
        {"label": "x", "tenant": ""},
        {"label": "x", "tenant": "a b"},
        {"label": "x", "adapters": ["../risk"]},
        {"label": "x", "adapters": ["[a-z]"]},
        {"label": "x", "adapters": ["Risk"]},
        {"label": "x", "adapters": "risk"},
        {"label": "x", "adapters": ["a"] * 257},
        {"label": "x", "weight": 0},
        {"label": "x", "weight": 1e9},
        {"label": "x", "requests_per_minute": 0},
        {"label": "x", "requests_per_minute": True},
        {"label": "x", "tokens_per_minute": 1.5},
        {"label": "x", "concurrency": -1},
        {"label": "x", "expires_in_seconds": 10**12},
        {"label": "x", "admin": 1},
    ],
)
async def test_a_key_that_cannot_be_is_refused(scripted_gateway: MakeGateway, fields: dict[str, Any]) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.post("/admin/keys", json=fields)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "validation_error")
    assert len(gateway.gateway.keys) == 0


async def test_tenants_share_no_prefix_cache_and_a_tenants_keys_do(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    keys = [
        (await gateway.client.post("/admin/keys", json={"label": "x", "tenant": tenant})).json()["key"]
        for tenant in ("acme", "acme", "other")
    ]
    for key in (*keys, None):
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        for path, body in (
            ("/generate", {"prompt": "a", "max_tokens": 1}),
            ("/lorax/generate", {"inputs": "a", "parameters": {"max_new_tokens": 1}}),
        ):
            assert (await gateway.client.post(path, json=body, headers=headers)).status_code == 200
    salts = [request.cache_salt for request in gateway.engine.requests]
    assert salts[0] is not None
    assert salts == [salts[0]] * 4 + [salts[4]] * 2 + [None] * 2
    assert salts[4] not in (salts[0], None)
