"""`/admin/adapters/{name}/traffic`: canaries and shadows of one adapter."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from starlette.responses import Response

from serve.errors import AdapterMissingError
from serve.gateway import Gateway
from serve.http.errors import json_response
from serve.lifecycle.traffic import TrafficPlan
from serve.operations.operation import Answer, Operation
from serve.routes.admin import Name
from serve.routes.dependencies import AdminDep, AdminRoute, GatewayDep
from serve.routes.documentation import ADMIN_ERRORS
from serve.routes.operate import ACCEPTED, VerbCallDep
from serve.schemas.admin import TrafficAnswer

router = APIRouter(
    prefix="/admin/adapters/{name}/traffic", route_class=AdminRoute, tags=["admin"], responses=ADMIN_ERRORS
)


@router.get("", summary="How the requests of a name are shared", response_model=TrafficAnswer)
async def get_traffic(name: Name, actor: AdminDep, gateway: GatewayDep) -> Response:
    """The plan, and the version that gets whatever no canary takes."""
    del actor
    return json_response(200, _fields(gateway, name))


@router.put(
    "",
    summary="Share the requests of a name between versions",
    response_model=TrafficAnswer,
    responses=ACCEPTED,
)
async def set_traffic(
    name: Name,
    body: TrafficPlan,
    call: VerbCallDep,
) -> Response:
    """Versions that the plan names are brought up and probed first; then it is in force in one step."""

    async def work(operation: Operation) -> Answer:
        operation.enter("prepare")
        await call.gateway.adapters.set_traffic(name, body, actor=call.actor)
        return Answer(200, _fields(call.gateway, name))

    return await call.operate("traffic", name, work, body.model_dump(mode="json"))


@router.delete(
    "", summary="Let the stable version answer alone", response_model=TrafficAnswer, responses=ACCEPTED
)
async def clear_traffic(name: Name, call: VerbCallDep) -> Response:
    """Canaries and shadows get no more requests; running ones finish."""

    async def work(operation: Operation) -> Answer:
        operation.enter("clear")
        await call.gateway.adapters.clear_traffic(name, actor=call.actor)
        return Answer(200, _fields(call.gateway, name))

    return await call.operate("clear_traffic", name, work, {})


def _fields(gateway: Gateway, name: str) -> dict[str, object]:
    status = gateway.adapters.status(name)
    if status is None:
        raise AdapterMissingError(f"no adapter is called {name!a}; GET /admin/adapters lists them")
    return {
        "name": name,
        "stable": str(status.desired) if status.desired is not None else None,
        "traffic": status.traffic.model_dump(mode="json") if status.traffic is not None else None,
        "standings": [asdict(standing) for standing in gateway.canaries.standings(name)],
    }
