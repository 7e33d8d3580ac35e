"""Calls of the admin API in the audit log.

Whatever becomes an operation is written down by its verb, with what came of it. Here stands the rest: calls that
were refused before, and calls that change something without an operation. Reading is in the access log alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from adapters.errors import AdapterNameError
from adapters.name import parse_alias
from bases.errors import HotswapError
from serve.errors import EngineNotReadyError, MissingKeyError
from serve.gateway import Gateway
from serve.http.errors import status_of
from serve.http.request_id import request_id_of
from serve.operations.operation import Operation

_READS = ("GET", "HEAD", "OPTIONS")
_NOTED = "operation_noted"


def note_operation(request: Request, operation: Operation, *, begun: bool) -> None:
    """Say that this call became an operation, whose verb writes it down; `begun` False: one that there was."""
    setattr(request.state, _NOTED, "" if begun else operation.id)


async def audited(
    request: Request,
    gateway: Gateway,
    find_caller: Callable[[Request], Awaitable[str]],
    handler: Callable[[Request], Awaitable[Response]],
) -> Response:
    """The answer of an admin route to whoever may use it, with a line in the audit log where no verb writes one.

    Raises what `find_caller` and `handler` raise.
    """
    try:
        actor = await find_caller(request)
    except HotswapError as error:
        if not isinstance(error, EngineNotReadyError):
            known = None if isinstance(error, MissingKeyError) else getattr(error, "caller", None)
            _note(gateway, request, known, status_of(error), error.code)
        raise
    try:
        response = await handler(request)
    except HotswapError as error:
        _note(gateway, request, actor, status_of(error), error.code)
        raise
    except RequestValidationError:
        _note(gateway, request, actor, 422, "validation_error")
        raise
    noted: str | None = getattr(request.state, _NOTED, None)
    if noted:
        _note(gateway, request, actor, response.status_code, "repeated")
    elif noted is None and (request.method not in _READS or response.status_code >= 400):
        outcome = "done" if response.status_code < 400 else "refused"
        _note(gateway, request, actor, response.status_code, outcome)
    return response


def _note(gateway: Gateway, request: Request, actor: str | None, status: int, outcome: str) -> None:
    route = getattr(request.scope.get("route"), "path", "/admin")
    gateway.audit.call(
        f"{request.method} {route}",
        actor=actor,
        status=status,
        outcome=outcome,
        request_id=request_id_of(request.scope),
        name=_name_of(request),
        address=request.client.host if request.client is not None else None,
    )


def _name_of(request: Request) -> str | None:
    """The adapter that the path names, if it could be one."""
    try:
        return parse_alias(str(request.path_params["name"]))
    except (KeyError, AdapterNameError):
        return None
