"""`/admin/adapters`: load, list, unload. Every route asks for the admin key first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from serve.errors import AdapterMissingError
from serve.gateway import Gateway
from serve.lifecycle.outcomes import LoadOutcome
from serve.lifecycle.state import AdapterState
from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS
from serve.schemas.admin import (
    NAME_PATTERN,
    AdapterList,
    AdapterView,
    Finding,
    LoadAnswer,
    LoadBody,
    ProbeView,
    UnloadAnswer,
    version_view,
)

router = APIRouter(prefix="/admin", route_class=AdminRoute, tags=["admin"], responses=ADMIN_ERRORS)

Name = Annotated[
    str, Path(min_length=1, max_length=64, pattern=NAME_PATTERN, description="Public name of an adapter.")
]


@router.get("/adapters", summary="All adapters, their versions and states")
async def list_adapters(actor: AdminDep, gateway: GatewayDep) -> AdapterList:
    """Desired and actual state."""
    del actor
    facts = gateway.engine.facts
    names = sorted({managed.version.name for managed in gateway.adapters.board.versions()})
    return AdapterList(
        base=gateway.adapters.board.base_name,
        adapters=[_view(gateway, name) for name in names],
        max_loras=facts.max_loras,
        max_cpu_loras=facts.max_cpu_loras,
        max_lora_rank=facts.max_lora_rank,
        resident=len(await gateway.engine.resident_adapters()),
    )


@router.get("/adapters/{name}", summary="One adapter")
async def get_adapter(name: Name, actor: AdminDep, gateway: GatewayDep) -> AdapterView:
    """One name and its versions."""
    del actor
    view = _view(gateway, name)
    if not view.versions:
        raise AdapterMissingError(f"no adapter is called {name!a}; GET /admin/adapters lists them")
    return view


@router.post(
    "/adapters",
    summary="Load an adapter, or replace it with a new version",
    status_code=201,
    responses={200: {"model": LoadAnswer, "description": "This version was live already."}},
)
async def load_adapter(
    body: LoadBody, actor: AdminDep, gateway: GatewayDep, response: Response
) -> LoadAnswer:
    """Check, load, probe, then move the name in one step; running requests finish on the old version."""
    outcome = await gateway.adapters.load(body.name, body.source, actor=actor)
    response.status_code = 201 if outcome.created else 200
    return load_answer(gateway, body.name, outcome)


@router.delete("/adapters/{name}", summary="Unload an adapter")
async def unload_adapter(
    name: Name,
    actor: AdminDep,
    gateway: GatewayDep,
    drain_seconds: Annotated[
        float | None,
        Query(ge=0, le=3600, allow_inf_nan=False, description="Wait so long for running requests."),
    ] = None,
) -> UnloadAnswer:
    """New requests get 404 at once; running ones finish, or end at the drain limit with an error."""
    versions = await gateway.adapters.unload(name, actor=actor, drain_seconds=drain_seconds)
    return UnloadAnswer(name=name, unloaded=[str(version) for version in versions])


def load_answer(gateway: Gateway, name: str, outcome: LoadOutcome) -> LoadAnswer:
    """What a load did, as the API shows it."""
    probe = outcome.managed.probe
    return LoadAnswer(
        adapter=_view(gateway, name),
        created=outcome.created,
        replaced=str(outcome.replaced) if outcome.replaced is not None else None,
        warnings=[
            Finding(code=w.code, message=w.message, subject=w.subject) for w in outcome.report.warnings
        ],
        probe=ProbeView.model_validate(probe, from_attributes=True) if probe is not None else None,
    )


def _view(gateway: Gateway, name: str) -> AdapterView:
    board = gateway.adapters.board
    live = board.behind(name)
    versions = [managed for managed in board.versions() if managed.version.name == name]
    return AdapterView(
        name=name,
        live=str(live.version) if live is not None and live.state is AdapterState.LIVE else None,
        versions=[version_view(managed, live=managed is live) for managed in versions],
    )
