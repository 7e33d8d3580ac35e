"""`/admin/events` and `/admin/audit`: what happened, as it happens and page by page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from adapters.registry.records import EventRecord
from serve.http.errors import json_response
from serve.http.event_stream import EventStream, encode_event
from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS, event_schema
from serve.schemas.admin import NAME_PATTERN
from serve.schemas.operations import EventPage, event_fields

router = APIRouter(prefix="/admin", route_class=AdminRoute, tags=["admin"], responses=ADMIN_ERRORS)

MAX_ID = 2**53
ACTION_PATTERN = r"^[A-Za-z][A-Za-z0-9 /{}_.-]{0,63}$"
ACTOR_PATTERN = r"^[A-Za-z0-9._:@-]{1,128}$"

NameQuery = Annotated[str | None, Query(pattern=NAME_PATTERN, description="Of this adapter alone.")]


@router.get(
    "/events",
    summary="Follow what happens",
    response_class=Response,
    responses={
        200: {
            "description": "Verbs and who called them, steps of versions, decisions on canaries, restarts.",
            "content": event_schema("One event for each; `event` is its action, `id` its number."),
        }
    },
)
async def follow_events(
    actor: AdminDep,
    gateway: GatewayDep,
    last_event_id: Annotated[
        str | None,
        Header(
            pattern=r"^[0-9]{1,15}$", description="Number of the last event that was seen: go on behind it."
        ),
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, le=MAX_ID, description="As Last-Event-ID. Default: what comes from now on.")
    ] = None,
    name: NameQuery = None,
    seconds: Annotated[
        float | None,
        Query(ge=0, le=86_400, allow_inf_nan=False, description="End after so long; 0: send what there is."),
    ] = None,
) -> Response:
    """Server-sent events until either side ends it; a comment every 15 s while nothing happens."""
    del actor
    events = gateway.events
    begin, last = int(last_event_id) if last_event_id is not None else after, await events.last_id()
    # An event that never was: of another registry, whose numbers are not these.
    batches = events.follow(last if begin is None or begin > last else begin)
    # The first look is taken here, so that a refusal has a proper status.
    first: list[EventRecord] = await anext(batches, [])
    return EventStream(
        _encode(first, batches, name),
        send_seconds=gateway.exchanges.limits.send_seconds,
        limit_seconds=seconds,
    )


async def _encode(
    first: list[EventRecord], batches: AsyncGenerator[list[EventRecord], None], name: str | None
) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(batches):
        yield _encoded(first, name)
        async for batch in batches:
            yield _encoded(batch, name)


def _encoded(batch: list[EventRecord], name: str | None) -> bytes:
    return b"".join(
        encode_event(record.event.action, event_fields(record), event_id=record.id)
        for record in batch
        if name is None or record.event.name == name
    )


@router.get("/audit", summary="The audit log, page by page", response_model=EventPage)
async def list_audit(
    actor: AdminDep,
    gateway: GatewayDep,
    name: NameQuery = None,
    by: Annotated[str | None, Query(pattern=ACTOR_PATTERN, description="Of this actor alone.")] = None,
    action: Annotated[str | None, Query(pattern=ACTION_PATTERN, description="This action alone.")] = None,
    states: Annotated[
        bool, Query(description="With the steps of versions, which are kept among the newest 100,000 events.")
    ] = False,
    before: Annotated[int | None, Query(ge=1, le=MAX_ID, description="Older than this event.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
) -> Response:
    """Who did what to which version, when, and how it ended; the newest first. What was done is only ever added."""
    del actor
    records = await gateway.events.page(
        name=name, actor=by, action=action, states=states, before_id=before, limit=limit
    )
    more = len(records) == limit
    return json_response(
        200,
        {
            "events": [event_fields(record) for record in records],
            "next_before": records[-1].id if more and records else None,
        },
    )
