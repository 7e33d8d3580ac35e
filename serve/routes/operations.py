"""`/admin/operations`: what verbs that take long are doing, and what came of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from serve.gateway import Gateway, Phase
from serve.http.errors import json_response
from serve.http.event_stream import EventStream, encode_event
from serve.operations.operation import ID_PATTERN, Operation
from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS, event_schema
from serve.routes.operate import MAX_WAIT_SECONDS
from serve.schemas.admin import NAME_PATTERN
from serve.schemas.operations import OperationList, OperationView, operation_fields

router = APIRouter(prefix="/admin", route_class=AdminRoute, tags=["admin"], responses=ADMIN_ERRORS)

EVENT_STREAM = "text/event-stream"
_PROGRESS_SECONDS = 1.0  # between two looks at a phase that goes on

OperationId = Annotated[str, Path(pattern=ID_PATTERN, description="Id of an operation.")]


@router.get("/operations", summary="Operations of the last day", response_model=OperationList)
async def list_operations(
    actor: AdminDep,
    gateway: GatewayDep,
    name: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Of this adapter alone.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
) -> Response:
    """The newest first."""
    del actor
    operations = await gateway.operations.list(name=name, limit=limit)
    return json_response(200, {"operations": [operation_fields(operation) for operation in operations]})


@router.get(
    "/operations/{operation_id}",
    summary="One operation",
    response_model=OperationView,
    responses={200: {"content": event_schema("`operation` events, the last one when it is over.")}},
)
async def get_operation(
    operation_id: OperationId,
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    wait: Annotated[
        float,
        Query(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False, description="Seconds to wait for its end."),
    ] = 0.0,
) -> Response:
    """State, phases with their seconds, and the result or the error.

    With `Accept: text/event-stream` the operation is sent whenever it goes on, until it is over.
    """
    del actor
    operation = await gateway.operations.get(operation_id)
    if EVENT_STREAM in request.headers.get("accept", ""):
        return EventStream(_follow(gateway, operation), send_seconds=gateway.exchanges.limits.send_seconds)
    await operation.wait(wait)
    return json_response(200, operation_fields(operation))


async def _follow(gateway: Gateway, operation: Operation) -> AsyncGenerator[bytes, None]:
    while True:
        yield encode_event("operation", operation_fields(operation))
        if operation.ended:
            return
        if operation.elsewhere:
            if gateway.phase is not Phase.READY:
                return
            await asyncio.sleep(_PROGRESS_SECONDS)
            operation = await gateway.operations.get(operation.id)
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PROGRESS_SECONDS):
                await operation.wait_change()
