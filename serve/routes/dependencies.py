"""What routes ask for, as typed dependencies.

They are coroutines because FastAPI sends plain functions to a thread, which costs a request two switches each.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.responses import Response

from serve.access.caller import Caller
from serve.errors import EngineNotReadyError, InvalidRequestError
from serve.gateway import Gateway, Phase
from serve.http.request_id import request_id_of
from serve.http.strict_json import JsonOnlyRoute, LenientTypeRoute
from serve.routes.audit import audited

_SESSION = re.compile(r"[A-Za-z0-9._:-]{1,128}")


async def _gateway(request: Request) -> Gateway:
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway) or gateway.phase in (Phase.STARTING, Phase.STOPPED):
        raise EngineNotReadyError("the engine is still starting; GET /readyz says when it is up")
    return gateway


async def _request_id(request: Request) -> str:
    return request_id_of(request.scope)


def _authorization(request: Request) -> list[bytes]:
    """The header as bytes, as often as it was sent: anything may stand in it."""
    return [value for name, value in request.headers.raw if name == b"authorization"]


# Only for the document.
_API_KEY = HTTPBearer(
    auto_error=False, scheme_name="api_key", description="A key of this gateway, where one is asked for."
)
_ADMIN_KEY = HTTPBearer(
    auto_error=False,
    scheme_name="admin_key",
    description="The admin key, or a key with the admin scope, where one is configured.",
)
_Documented = HTTPAuthorizationCredentials | None


async def _caller_of(
    request: Request,
    gateway: Annotated[Gateway, Depends(_gateway)],
    _documented: Annotated[_Documented, Security(_API_KEY)],
) -> Caller:
    return gateway.access.identify(_authorization(request))


async def _session_of(request: Request, gateway: Annotated[Gateway, Depends(_gateway)]) -> str | None:
    """The client's name for a row of requests that belong together; one that is malformed is none."""
    session = request.headers.get(gateway.session_header, "")
    return session if _SESSION.fullmatch(session) else None


GatewayDep = Annotated[Gateway, Depends(_gateway)]
RequestIdDep = Annotated[str, Depends(_request_id)]
CallerDep = Annotated[Caller, Depends(_caller_of)]
SessionDep = Annotated[str | None, Depends(_session_of)]


async def _admin(
    request: Request, gateway: GatewayDep, _documented: Annotated[_Documented, Security(_ADMIN_KEY)]
) -> str:
    return gateway.access.admin(_authorization(request)).name


async def _metrics_reader(
    request: Request, _documented: Annotated[_Documented, Security(_API_KEY)]
) -> Gateway | None:
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway):
        return None
    gateway.access.metrics(_authorization(request))
    return gateway


async def find_caller(request: Request) -> str:
    """Name the caller of an admin route.

    Raises EngineNotReadyError, MissingKeyError, KeysUnavailableError, AdminDisabledError, ScopeError.
    """
    return (await _gateway(request)).access.admin(_authorization(request)).name


class KeyedRoute(LenientTypeRoute):
    """Strict JSON from whoever may be answered; others learn nothing of what they sent.

    A route without a body asks by its dependency alone.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if self.body_field is not None:
                # FastAPI parses the body before it asks the dependencies.
                (await _gateway(request)).access.identify(_authorization(request))
            return await handler(request)

        return guarded


class AdminRoute(JsonOnlyRoute):
    """Strict JSON from whoever may use the admin API; others learn nothing of what they sent."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = known_queries(self.dependant, super().get_route_handler())

        async def guarded(request: Request) -> Response:
            # FastAPI parses the body before it asks the dependencies.
            return await call_admin(request, handler)

        return guarded


def known_queries(
    dependant: Dependant, handler: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """`handler`, which a query with a parameter that the route does not have never reaches.

    FastAPI drops such a parameter: `?promot=false` would promote.
    """
    known = {field.alias for field in get_flat_dependant(dependant).query_params}

    async def strict(request: Request) -> Response:
        unknown = next((name for name in request.query_params if name not in known), None)
        if unknown is not None:
            taken = ", ".join(sorted(known)) or "none"
            raise InvalidRequestError(
                f"the query names {unknown[:80]!a}, which this route does not take (it takes: {taken})",
                param=ascii(unknown[:80])[1:-1],
            )
        return await handler(request)

    return strict


async def call_admin(request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Response:
    """The answer of an admin route to whoever may use it; the call is in the audit log, refused or not."""
    return await audited(request, await _gateway(request), find_caller, handler)


# Name of the caller, for the audit log.
AdminDep = Annotated[str, Depends(_admin)]
# None while the server starts: there is nothing to read then.
MetricsDep = Annotated[Gateway | None, Depends(_metrics_reader)]
