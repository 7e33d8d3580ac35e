"""Calls of the admin API in the audit log.

A verb writes itself down, with what came of it. Here stands the rest: calls that were refused before a verb began,
and calls that change something without one. Reading is in the access log alone.
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
from serve.observability.events import call_noted

_READS = ("GET", "HEAD", "OPTIONS")
_OPERATION = "operation"  # what became of the call, in the request's state
BEGUN, REPEATED = "begun", "repeated"


def note_operation(request: Request, *, begun: bool) -> None:
    """Say that this call became an operation, whose verb writes it down; `begun` False: one that there was."""
    setattr(request.state, _OPERATION, BEGUN if begun else REPEATED)


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
    outcome, status = "internal_error", 500  # unless something better is known
    with call_noted() as call:
        try:
            response = await handler(request)
            status = response.status_code
            outcome = "done" if status < 400 else "refused"
            return response
        except HotswapError as error:
            outcome, status = error.code, status_of(error)
            raise
        except RequestValidationError:
            outcome, status = "validation_error", 422
            raise
        finally:
            operation: str | None = getattr(request.state, _OPERATION, None)
            if operation == REPEATED:
                _note(gateway, request, actor, status, REPEATED)
            elif operation is None and not call.noted and (request.method not in _READS or status >= 400):
                _note(gateway, request, actor, status, outcome)


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
