"""`/admin/adapters/{name}`: verbs on the versions of one adapter."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from serve.gateway import Gateway
from serve.lifecycle.outcomes import MoveOutcome
from serve.operations.operation import Answer, Operation
from serve.routes.admin import Drain, DrainSeconds, Name, drain_limit, view_of
from serve.routes.dependencies import AdminRoute
from serve.routes.documentation import ADMIN_ERRORS
from serve.routes.operate import ACCEPTED, VerbCallDep
from serve.schemas.admin import (
    DIGEST_PATTERN,
    MoveAnswer,
    NoFields,
    PromoteBody,
    UnloadAnswer,
    VersionAnswer,
)

router = APIRouter(
    prefix="/admin/adapters/{name}",
    route_class=AdminRoute,
    tags=["admin"],
    responses={**ADMIN_ERRORS, **ACCEPTED},
)

Version = Annotated[
    str,
    Path(
        min_length=8,
        max_length=64,
        pattern=DIGEST_PATTERN,
        description="Digest of a version, or the first 8 digits of it and more.",
    ),
]


@router.post("/promote", summary="Let the name mean another version", response_model=MoveAnswer)
async def promote_version(
    name: Name,
    body: PromoteBody,
    call: VerbCallDep,
) -> Response:
    """The version is brought up and probed first; then the name moves in one step."""

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        outcome = await call.gateway.adapters.promote(
            name, body.version, actor=call.actor, expected_live=body.expected_live
        )
        return _move_answer(call.gateway, name, outcome)

    return await call.operate("promote", name, work, body.model_dump(mode="json"))


@router.post("/rollback", summary="Let the name mean what it meant before", response_model=MoveAnswer)
async def roll_back(
    name: Name,
    call: VerbCallDep,
    body: NoFields | None = None,
) -> Response:
    """Back to the version that was live before; twice is where it began."""
    del body

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        return _move_answer(call.gateway, name, await call.gateway.adapters.rollback(name, actor=call.actor))

    return await call.operate("rollback", name, work, {})


@router.post("/versions/{version}/pin", summary="Keep a version loaded", response_model=VersionAnswer)
async def pin_version(
    name: Name,
    version: Version,
    call: VerbCallDep,
    body: NoFields | None = None,
) -> Response:
    """It stays loaded, and answers under `name@digest`, whatever the name means."""
    del body

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        pinned = _is_pinned(call.gateway, name, version)
        managed = await call.gateway.adapters.pin(name, version, actor=call.actor)
        return _version_answer(call.gateway, name, str(managed.version), changed=not pinned)

    return await call.operate("pin", name, work, {"version": version})


@router.delete("/versions/{version}/pin", summary="Take a pin back", response_model=VersionAnswer)
async def unpin_version(
    name: Name,
    version: Version,
    call: VerbCallDep,
) -> Response:
    """A version that nothing else wants is unloaded when its last request has ended; it stays in the store."""

    async def work(operation: Operation) -> Answer:
        operation.enter("unpin")
        changed = await call.gateway.adapters.unpin(name, version, actor=call.actor)
        return _version_answer(call.gateway, name, f"{name}@{version[:8]}", changed=changed)

    return await call.operate("unpin", name, work, {"version": version})


@router.post(
    "/versions/{version}/prefetch", summary="Bring a version into memory", response_model=VersionAnswer
)
async def prefetch_version(
    name: Name,
    version: Version,
    call: VerbCallDep,
    body: NoFields | None = None,
) -> Response:
    """In the engine and probed, so that promoting it takes no time; the name stays where it is."""
    del body

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        managed = await call.gateway.adapters.prefetch(name, version, actor=call.actor)
        return _version_answer(call.gateway, name, str(managed.version), changed=True)

    return await call.operate("prefetch", name, work, {"version": version})


@router.delete("/versions/{version}", summary="Take a version out of the engine", response_model=UnloadAnswer)
async def unload_version(
    name: Name,
    version: Version,
    call: VerbCallDep,
    drain: Drain = None,
    drain_seconds: DrainSeconds = None,
) -> Response:
    """Not the one that the name means. It stays in the store, to go back to."""
    limit = drain_limit(drain, drain_seconds)

    async def work(operation: Operation) -> Answer:
        operation.enter("unload")
        gone = await call.gateway.adapters.unload_version(
            name, version, actor=call.actor, drain_seconds=limit
        )
        return Answer(200, {"name": name, "unloaded": [str(gone)]})

    return await call.operate("unload_version", name, work, {"version": version, "drain_seconds": limit})


def _move_answer(gateway: Gateway, name: str, outcome: MoveOutcome) -> Answer:
    return Answer(
        200,
        {
            "adapter": view_of(gateway, name),
            "version": str(outcome.managed.version),
            "moved": outcome.moved,
            "left": str(outcome.left) if outcome.left is not None else None,
        },
    )


def _version_answer(gateway: Gateway, name: str, version: str, *, changed: bool) -> Answer:
    return Answer(200, {"adapter": view_of(gateway, name), "version": version, "changed": changed})


def _is_pinned(gateway: Gateway, name: str, version: str) -> bool:
    status = gateway.adapters.status(name)
    return status is not None and any(
        one.pinned and one.version.digest.startswith(version) for one in status.versions
    )
