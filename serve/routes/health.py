"""`/livez`, `/readyz`, `/metrics`: for whoever watches the server."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from serve.engine.protocol import Engine
from serve.errors import EngineError, EngineNotReadyError
from serve.gateway import Gateway, Phase
from serve.routes.dependencies import MetricsDep
from serve.routes.documentation import WIRE_ERRORS, errors

router = APIRouter(tags=["health"], responses=WIRE_ERRORS)


class Readiness(BaseModel):
    """What the server is doing."""

    status: str
    base: str
    adapters: int
    running: int
    queued: int


@router.get("/livez", summary="The process answers", response_class=PlainTextResponse)
async def livez() -> str:
    """200 while the event loop turns, also while starting and draining."""
    return "ok\n"


@router.get("/readyz", summary="New work is taken", responses=errors(503))
async def readyz(request: Request) -> Readiness:
    """200 when the engine answers and the server is not shutting down; the error says what it waits for."""
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway) or gateway.phase is Phase.STARTING:
        raise EngineNotReadyError("the engine is still starting")
    if gateway.phase is not Phase.READY:
        raise EngineNotReadyError("the server is shutting down")
    await gateway.engine.check_health()
    board = gateway.adapters.board
    return Readiness(
        status="ready",
        base=board.base_name,
        adapters=len(board.aliases()),
        running=gateway.admission.running,
        queued=gateway.admission.queued_requests,
    )


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses=errors(401, 403, 503),
)
async def metrics(gateway: MetricsDep) -> Response:
    """The gateway's series (`hotswap_*`) and the engine's (`vllm:*`).

    Where requests need a key, these need one with the metrics or the admin scope.
    """
    if gateway is None:
        return Response(b"", media_type=CONTENT_TYPE_LATEST)
    ours = gateway.metrics
    ours.in_flight.set(gateway.admission.requests)
    ours.running.set(gateway.admission.running)
    ours.queued.set(gateway.admission.queued_requests)
    ours.queued_tokens.set(gateway.admission.queued_tokens)
    ours.queue_age_seconds.set(gateway.admission.queue_age_seconds)
    answers = await _answers(gateway.engine)
    ours.engine_up.set(answers)
    ours.ready.set(answers and gateway.phase is Phase.READY)
    _show_traffic(gateway)
    ours.known_versions({str(managed.version) for managed in gateway.adapters.board.versions()})
    # Thousands of series are text in a tenth of a second: not on the event loop.
    return Response(await asyncio.to_thread(ours.render), media_type=CONTENT_TYPE_LATEST)


def _show_traffic(gateway: Gateway) -> None:
    shown, board = gateway.metrics.traffic_share, gateway.adapters.board
    shown.clear()
    for alias in board.aliases():
        plan = board.traffic(alias)
        for kind, shares in (("canary", plan.shares), ("shadow", plan.shadow)) if plan is not None else ():
            for digest, share in shares.items():
                shown.labels(alias, digest[:8], kind).set(share)


async def _answers(engine: Engine) -> bool:
    try:
        await engine.check_health()
    except EngineError:
        return False
    return True
