"""`/admin/adapters`: list, check, load, unload. Every route asks for the admin key first."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from adapters.name import parse_alias
from adapters.source import is_remote
from serve.errors import AdapterMissingError, InvalidRequestError
from serve.gateway import Gateway
from serve.http.errors import json_response
from serve.lifecycle.outcomes import LoadOutcome
from serve.operations.operation import Answer, Operation
from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS
from serve.routes.operate import ACCEPTED, VerbCallDep
from serve.schemas.admin import (
    NAME_PATTERN,
    AdapterList,
    AdapterView,
    LoadAnswer,
    LoadBody,
    UnloadAnswer,
    ValidateAnswer,
    ValidateBody,
    adapter_fields,
    finding_fields,
    probe_fields,
)

router = APIRouter(prefix="/admin", route_class=AdminRoute, tags=["admin"], responses=ADMIN_ERRORS)

MAX_DRAIN_SECONDS = 3600.0
DRAIN_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,3})?(s|m|h)?$"
_UNIT_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

Name = Annotated[
    str, Path(min_length=1, max_length=64, pattern=NAME_PATTERN, description="Public name of an adapter.")
]
Drain = Annotated[
    str | None,
    Query(
        pattern=DRAIN_PATTERN,
        max_length=16,
        description="Wait so long for running requests: `30s`, `2m`, `30`.",
    ),
]
DrainSeconds = Annotated[
    float | None,
    Query(ge=0, le=MAX_DRAIN_SECONDS, allow_inf_nan=False, description="As `drain`, in seconds."),
]


@router.get("/adapters", summary="All adapters, their versions and states", response_model=AdapterList)
async def list_adapters(actor: AdminDep, gateway: GatewayDep) -> Response:
    """Desired and actual state."""
    del actor
    facts = gateway.engine.facts
    adapters, resident = await asyncio.gather(
        gateway.listing.render(gateway.adapters.records()), gateway.residents.count()
    )
    return json_response(
        200,
        {
            "base": gateway.adapters.board.base_name,
            "adapters": adapters,
            "max_loras": facts.max_loras,
            "max_cpu_loras": facts.max_cpu_loras,
            "max_lora_rank": facts.max_lora_rank,
            "resident": resident,
        },
    )


@router.get("/adapters/{name}", summary="One adapter", response_model=AdapterView)
async def get_adapter(name: Name, actor: AdminDep, gateway: GatewayDep) -> Response:
    """One name and its versions."""
    del actor
    status = gateway.adapters.status(name)
    if status is None:
        raise AdapterMissingError(f"no adapter is called {name!a}; GET /admin/adapters lists them")
    return json_response(200, adapter_fields(status))


@router.post(
    "/adapters/validate", summary="Check an adapter without loading it", response_model=ValidateAnswer
)
async def validate_adapter(body: ValidateBody, actor: AdminDep, gateway: GatewayDep) -> Response:
    """A dry run: every problem at once; nothing is stored, the engine is not called."""
    report = await gateway.adapters.validate(body.source, actor=actor)
    return json_response(200, report.to_dict())


@router.post(
    "/adapters",
    summary="Load an adapter, or replace it with a new version",
    status_code=201,
    response_model=LoadAnswer,
    responses={200: {"model": LoadAnswer, "description": "This version answered already."}, **ACCEPTED},
)
async def load_adapter(body: LoadBody, call: VerbCallDep) -> Response:
    """Check, load, probe, then move the name in one step; running requests finish on the old version."""
    adapters = call.gateway.adapters
    parse_alias(body.name, base_name=adapters.board.base_name)

    async def work(operation: Operation) -> Answer:
        operation.enter("fetch" if is_remote(body.source) else "check")
        outcome = await adapters.load(
            body.name, body.source, actor=call.actor, promote=body.promote, expected_live=body.expected_live
        )
        return load_answer(call.gateway, body.name, outcome)

    return await call.operate("load", body.name, work, body.model_dump(mode="json"))


@router.delete(
    "/adapters/{name}", summary="Unload an adapter", response_model=UnloadAnswer, responses=ACCEPTED
)
async def unload_adapter(
    name: Name,
    call: VerbCallDep,
    drain: Drain = None,
    drain_seconds: DrainSeconds = None,
) -> Response:
    """New requests get 404 at once; running ones finish, or end at the drain limit with an error."""
    limit = drain_limit(drain, drain_seconds)

    async def work(operation: Operation) -> Answer:
        operation.enter("unload")
        versions = await call.gateway.adapters.unload(name, actor=call.actor, drain_seconds=limit)
        return Answer(200, {"name": name, "unloaded": [str(version) for version in versions]})

    return await call.operate("unload", name, work, {"drain_seconds": limit})


def drain_limit(drain: str | None, drain_seconds: float | None) -> float | None:
    """Seconds from `30s`, `2m`, `1h`, `30` or a number; None where none is given. Raises InvalidRequestError."""
    if drain is None:
        return drain_seconds
    if drain_seconds is not None:
        raise InvalidRequestError("drain and drain_seconds say the same; send one of them", param="drain")
    digits = drain.rstrip("smh")
    seconds = float(digits) * _UNIT_SECONDS[drain.removeprefix(digits)]
    if seconds > MAX_DRAIN_SECONDS:
        raise InvalidRequestError(
            f"drain is {drain}; at most {MAX_DRAIN_SECONDS:g} s are waited for running requests",
            param="drain",
        )
    return seconds


def load_answer(gateway: Gateway, name: str, outcome: LoadOutcome) -> Answer:
    """What a load did, as the API shows it."""
    body = {
        "adapter": view_of(gateway, name),
        "version": str(outcome.managed.version),
        "created": outcome.created,
        "replaced": str(outcome.replaced) if outcome.replaced is not None else None,
        "warnings": finding_fields(outcome.report.warnings),
        "probe": probe_fields(outcome.managed.probe),
    }
    return Answer(201 if outcome.created else 200, body)


def view_of(gateway: Gateway, name: str) -> dict[str, object]:
    """The fields of AdapterView of a name that a verb has just worked on."""
    status = gateway.adapters.status(name)
    if status is None:
        raise AdapterMissingError(
            f"adapter {name!a} was unloaded meanwhile; GET /admin/adapters lists what is there"
        )
    return adapter_fields(status)
