"""`/admin/keys`: make, list and revoke API keys. Every route asks for the admin scope first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from adapters.registry.records import Event
from serve.access.api_key import make_key
from serve.observability.events import mark_noted
from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS
from serve.schemas.keys import KEY_ID_PATTERN, CreatedKey, KeyBody, KeyList, KeyView, key_view

router = APIRouter(prefix="/admin", route_class=AdminRoute, tags=["keys"], responses=ADMIN_ERRORS)

KeyId = Annotated[
    str,
    Path(min_length=16, max_length=16, pattern=KEY_ID_PATTERN, description="Id of a key: `hsk_<id>_...`."),
]


@router.post("/keys", summary="Make an API key", status_code=201)
async def create_key(body: KeyBody, actor: AdminDep, gateway: GatewayDep, response: Response) -> CreatedKey:
    """The answer holds the key; it is shown this once. Good here at once, on other replicas within seconds."""
    fresh = make_key()
    record = await gateway.keys.create(body.new_key(fresh), actor=actor)
    mark_noted()
    gateway.metrics.note_event(Event(actor, "create_key", "done"))
    response.headers["Cache-Control"] = "no-store"
    return CreatedKey(**key_view(record).model_dump(), key=fresh.text)


@router.get("/keys", summary="All API keys")
async def list_keys(actor: AdminDep, gateway: GatewayDep) -> KeyList:
    """What each may do, and when it was last used; never a key."""
    del actor
    return KeyList(keys=[key_view(record) for record in await gateway.keys.list_all()])


@router.get("/keys/{key_id}", summary="One API key")
async def get_key(key_id: KeyId, actor: AdminDep, gateway: GatewayDep) -> KeyView:
    """What it may do, and when it was last used; never the key."""
    del actor
    return key_view(await gateway.keys.get(key_id))


@router.delete("/keys/{key_id}", summary="Revoke an API key")
async def revoke_key(key_id: KeyId, actor: AdminDep, gateway: GatewayDep) -> KeyView:
    """For good: refused here at once, on other replicas within seconds. Requests that run with it finish."""
    record = await gateway.keys.revoke(key_id, actor=actor)
    mark_noted()
    gateway.metrics.note_event(Event(actor, "revoke_key", "done"))
    return key_view(record)
