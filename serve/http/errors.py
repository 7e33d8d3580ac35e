"""Errors as HTTP: the status of each domain error and the one JSON shape all of them have.

`{"error": {"type", "code", "message", "param", "request_id"}}`; see docs/api.md.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from adapters import errors as adapter_errors
from bases.errors import HotswapError
from serve import errors
from serve.http.request_id import request_id_of
from serve.http.strict_json import ContentTypeError, InvalidJsonError
from serve.http.tgi_errors import speaks_tgi, tgi_error
from serve.lifecycle.state import TransitionError
from serve.running import ClientGoneError

logger = logging.getLogger("hotswap.http")


class InternalError(errors.ServeError):
    """A bug; the log has the traceback, the client gets the request id to ask about it."""

    code = "internal_error"


# The first match wins: subclasses stand before their parents.
_STATUS: tuple[tuple[type[HotswapError], int], ...] = (
    (ClientGoneError, 499),
    (errors.ContextLengthError, 400),
    (errors.GrammarError, 400),
    (errors.ReviewRefusedError, 400),
    (errors.EngineRefusedError, 400),
    (errors.UnknownModelError, 404),
    (errors.OperationMissingError, 404),
    (errors.IdempotencyConflictError, 409),
    (errors.BodyTooLargeError, 413),
    (errors.BodyTimeoutError, 408),
    (InvalidJsonError, 400),
    (ContentTypeError, 415),
    (errors.RequestError, 422),
    (errors.MissingKeyError, 401),
    (errors.AccessError, 403),
    (errors.QueueFullError, 429),
    (errors.RateLimitedError, 429),
    (errors.BusyError, 503),
    (errors.AdapterMissingError, 404),
    (errors.ProbeFailedError, 422),
    (TransitionError, 500),
    (errors.LifecycleError, 502),
    (errors.DeadlineExceededError, 504),
    (errors.ReviewFailedError, 503),
    (errors.RequestAbortedError, 503),
    (errors.EngineNotReadyError, 503),
    (errors.EngineDeadError, 503),
    (errors.EngineError, 500),
    (adapter_errors.AdapterNotFoundError, 404),
    (adapter_errors.AdapterConflictError, 409),
    (adapter_errors.AdapterChangedError, 409),
    (adapter_errors.AdapterStoreFullError, 507),
    (adapter_errors.AdapterFetchError, 502),
    (adapter_errors.AdapterStoreError, 503),
    (adapter_errors.KeyNotFoundError, 404),
    (adapter_errors.RegistryError, 503),
    (adapter_errors.AdapterError, 422),
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    502: "engine_error",
    503: "unavailable_error",
    504: "timeout_error",
    507: "storage_error",
}
_RETRY_AFTER_SECONDS = 5
_PLACES = frozenset({"body", "query", "path"})
_UNION_MEMBERS = frozenset({"constrained-str", "constrained-int", "str", "int", "NamedTool"})
_MAX_MESSAGES = 8
_FIRST_FIELD = re.compile(r"'([a-z_]+)'")


def status_of(error: HotswapError) -> int:
    """HTTP status of a domain error; 500 for one without a line above."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_type(status: int) -> str:
    """The coarse kind of an error with that status."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_body(
    status: int, code: str, message: str, request_id: str, *, param: str | None = None, **extra: Any
) -> dict[str, Any]:
    """The JSON shape of every error."""
    body = {
        "type": error_type(status),
        "code": code,
        "message": message,
        "param": param,
        "request_id": request_id,
    }
    return {"error": {**body, **extra}}


def body_of(error: HotswapError, request_id: str) -> dict[str, Any]:
    """The JSON of a domain error; the report of a failed adapter check or the numbers of a probe come along."""
    extra: dict[str, Any] = {}
    if isinstance(error, adapter_errors.AdapterCheckError):
        extra["problems"] = [
            {"code": problem.code, "message": problem.message, "subject": problem.subject}
            for problem in error.report.problems
        ]
    if isinstance(error, errors.ProbeFailedError):
        extra["problems"] = [{"code": error.cause, "message": str(error), "subject": "probe"}]
        if error.numbers is not None:
            extra["probe"] = dict(error.numbers)
    param = error.param if isinstance(error, errors.RequestError) else None
    return error_body(status_of(error), error.code, str(error), request_id, param=param, **extra)


def headers_of(error: HotswapError) -> dict[str, str]:
    """Headers that go with a domain error."""
    headers: dict[str, str] = {}
    if isinstance(error, errors.BusyError):
        headers["Retry-After"] = str(error.retry_after_seconds)
        if isinstance(error, errors.RateLimitedError):
            headers.update(error.headers)
    elif status_of(error) == 503:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    if isinstance(error, errors.MissingKeyError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.DrainingError | errors.BodyTooLargeError | errors.BodyTimeoutError):
        headers["Connection"] = "close"
    return headers


def json_response(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(body), status, dict(headers or {}), media_type="application/json")


def error_response(
    scope: Scope, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """The response of an error, in the dialect of the route that was asked."""
    if speaks_tgi(str(scope.get("path", ""))):
        status, body = tgi_error(status, body)
    return json_response(status, body, headers)


def domain_response(error: HotswapError, request: Request) -> Response:
    """The response of a domain error; the server's own failures go into the log."""
    status = status_of(error)
    if status >= 500 and not isinstance(error, errors.EngineNotReadyError):
        logger.warning("request %s: %s: %s", request_id_of(request.scope), error.code, error)
    return error_response(
        request.scope, status, body_of(error, request_id_of(request.scope)), headers_of(error)
    )


def _describe(problem: Mapping[str, Any]) -> tuple[str, str]:
    """(field, message) of one validation problem, without the value: it may be a megabyte, or a secret."""
    place = problem["loc"]
    named = [str(part) for part in (place[1:] if place[:1] and place[0] in _PLACES else place)]
    # pydantic names the members of a union by their types: not a client's business.
    parts = [part for part in named if "[" not in part and part not in _UNION_MEMBERS]
    where = ".".join(parts) or "body"
    if problem["type"] == "extra_forbidden":
        return where, f"{where!r} is not a field of this request"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not parts and (named_first := _FIRST_FIELD.match(message)) is not None:
        return named_first.group(1), message  # of fields that do not go together
    return where, f"{where}: {message}"


def _telling(problems: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without "should be a valid list" where a text was given, the field takes both, and the text is at fault."""
    at_fault = {problem["loc"][:2] for problem in problems if not problem["type"].endswith("_type")}
    return [p for p in problems if not p["type"].endswith("_type") or p["loc"][:2] not in at_fault]


def _methods(request: Request) -> list[str]:
    """Methods that the path takes; the router names those of the first route alone.

    A path of its own (/admin/adapters/validate) takes none of those of the pattern that it fits (.../{name}).
    """
    found: set[str] = set()
    own: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
            if route.path == request.scope["path"]:
                own |= route.methods or set()
    return sorted(own or found)


def install_error_handlers(app: FastAPI) -> None:
    """Give every error of the app the one JSON shape."""

    async def on_domain(request: Request, error: Exception) -> Response:
        if not isinstance(error, HotswapError):
            raise error
        return domain_response(error, request)

    async def on_validation(request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        described = [_describe(problem) for problem in _telling(error.errors())]
        messages = list(dict.fromkeys(message[:300] for _, message in described))
        text = "; ".join(messages[:_MAX_MESSAGES])
        if len(messages) > _MAX_MESSAGES:
            text += f"; and {len(messages) - _MAX_MESSAGES} more"
        param = described[0][0][:100] if described else None
        body = error_body(422, "validation_error", text, request_id_of(request.scope), param=param)
        return error_response(request.scope, 422, body)

    async def on_http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        code = {404: "route_not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        message = {
            404: "there is no such route; see /docs",
            405: "this route does not take that method; see /docs",
        }.get(error.status_code, str(error.detail))
        body = error_body(error.status_code, code, message, request_id_of(request.scope))
        headers = error.headers if error.status_code != 405 else {"Allow": ", ".join(_methods(request))}
        return error_response(request.scope, error.status_code, body, headers)

    async def on_bug(request: Request, error: Exception) -> Response:
        request_id = request_id_of(request.scope)
        logger.error("request %s failed", request_id, exc_info=error)
        message = "the server failed on this request; its log holds the reason under the request id"
        # This handler stands outside the middleware that adds the header to every other answer.
        headers = {"X-Request-Id": request_id}
        body = error_body(500, "internal_error", message, request_id)
        return error_response(request.scope, 500, body, headers)

    app.add_exception_handler(HotswapError, on_domain)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)
