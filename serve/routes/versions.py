"""`/admin/adapters/{name}`: verbs on the versions of one adapter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from serve.gateway import Gateway
from serve.lifecycle.outcomes import MoveOutcome
from serve.operations.operation import Answer, Operation
from serve.routes.admin import Drain, DrainSeconds, Name, drain_limit, view_of
from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS
from serve.routes.operate import ACCEPTED, WaitingDep, operate
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
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    waiting: WaitingDep,
) -> Response:
    """The version is brought up and probed first; then the name moves in one step."""

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        outcome = await gateway.adapters.promote(
            name, body.version, actor=actor, expected_live=body.expected_live
        )
        return _move_answer(gateway, name, outcome)

    return await operate(
        gateway,
        request,
        waiting,
        action="promote",
        name=name,
        actor=actor,
        asked=body.model_dump(mode="json"),
        work=work,
    )


@router.post("/rollback", summary="Let the name mean what it meant before", response_model=MoveAnswer)
async def roll_back(
    name: Name,
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    waiting: WaitingDep,
    body: NoFields | None = None,
) -> Response:
    """Back to the version that was live before; twice is where it began."""
    del body

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        return _move_answer(gateway, name, await gateway.adapters.rollback(name, actor=actor))

    return await operate(
        gateway, request, waiting, action="rollback", name=name, actor=actor, asked={}, work=work
    )


@router.post("/versions/{version}/pin", summary="Keep a version loaded", response_model=VersionAnswer)
async def pin_version(
    name: Name,
    version: Version,
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    waiting: WaitingDep,
    body: NoFields | None = None,
) -> Response:
    """It stays loaded, and answers under `name@digest`, whatever the name means."""
    del body

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        pinned = _is_pinned(gateway, name, version)
        managed = await gateway.adapters.pin(name, version, actor=actor)
        return _version_answer(gateway, name, str(managed.version), changed=not pinned)

    return await _operate(gateway, request, waiting, "pin", name, version, actor, work)


@router.delete("/versions/{version}/pin", summary="Take a pin back", response_model=VersionAnswer)
async def unpin_version(
    name: Name,
    version: Version,
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    waiting: WaitingDep,
) -> Response:
    """A version that nothing else wants is unloaded when its last request has ended; it stays in the store."""

    async def work(operation: Operation) -> Answer:
        operation.enter("unpin")
        changed = await gateway.adapters.unpin(name, version, actor=actor)
        return _version_answer(gateway, name, f"{name}@{version[:8]}", changed=changed)

    return await _operate(gateway, request, waiting, "unpin", name, version, actor, work)


@router.post(
    "/versions/{version}/prefetch", summary="Bring a version into memory", response_model=VersionAnswer
)
async def prefetch_version(
    name: Name,
    version: Version,
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    waiting: WaitingDep,
    body: NoFields | None = None,
) -> Response:
    """In the engine and probed, so that promoting it takes no time; the name stays where it is."""
    del body

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        managed = await gateway.adapters.prefetch(name, version, actor=actor)
        return _version_answer(gateway, name, str(managed.version), changed=True)

    return await _operate(gateway, request, waiting, "prefetch", name, version, actor, work)


@router.delete("/versions/{version}", summary="Take a version out of the engine", response_model=UnloadAnswer)
async def unload_version(
    name: Name,
    version: Version,
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    waiting: WaitingDep,
    drain: Drain = None,
    drain_seconds: DrainSeconds = None,
) -> Response:
    """Not the one that the name means. It stays in the store, to go back to."""
    limit = drain_limit(drain, drain_seconds)

    async def work(operation: Operation) -> Answer:
        operation.enter("unload")
        gone = await gateway.adapters.unload_version(name, version, actor=actor, drain_seconds=limit)
        return Answer(200, {"name": name, "unloaded": [str(gone)]})

    return await _operate(
        gateway, request, waiting, "unload_version", name, version, actor, work, drain_seconds=limit
    )


async def _operate(
    gateway: Gateway,
    request: Request,
    waiting: WaitingDep,
    action: str,
    name: str,
    version: str,
    actor: str,
    work: Callable[[Operation], Awaitable[Answer]],
    **asked: Any,
) -> Response:
    return await operate(
        gateway,
        request,
        waiting,
        action=action,
        name=name,
        actor=actor,
        asked={"version": version, **asked},
        work=work,
    )


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
