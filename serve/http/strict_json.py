"""JSON bodies read strictly: UTF-8, no NaN or Infinity, no duplicate keys, no nesting without end.

Any content type is accepted where `curl -d` should work; a route that changes state asks for
`application/json`, which a web page cannot send to another site without the browser asking first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from serve.errors import InvalidRequestError


class InvalidJsonError(InvalidRequestError):
    """The body is not JSON as this server reads it."""

    code = "invalid_json"


class ContentTypeError(InvalidRequestError):
    """The route takes `Content-Type: application/json` alone."""

    code = "content_type"


# Deeper values would end serialisers and validators further on, which recurse.
MAX_DEPTH = 64


def _no_constant(name: str) -> NoReturn:
    raise InvalidJsonError(f"{name} is not JSON; send a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidJsonError("the body holds a number that is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidJsonError("an object names the same key twice")
    return found


def parse_json(body: bytes) -> Any:
    """The value of a JSON text. Raises InvalidJsonError, without the text."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InvalidJsonError("the body is nested too deeply") from None
    except ValueError:  # an integer with more digits than Python converts
        raise InvalidJsonError("the body holds a number with too many digits") from None
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level := [
        child
        for node in level
        if isinstance(node, dict | list)
        for child in (node.values() if isinstance(node, dict) else node)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidJsonError(f"the body is nested more than {MAX_DEPTH} levels deep")


class StrictRequest(Request):
    """A request whose `json` is strict."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


def _as_json(scope: dict[str, Any]) -> dict[str, Any]:
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


async def _read(route: APIRoute, request: StrictRequest) -> StrictRequest:
    """Parse the body here: FastAPI would turn the reason of a failure into a sentence of its own."""
    if route.body_field is not None and await request.body():
        await request.json()
    return request


class LenientTypeRoute(APIRoute):
    """Strict JSON under any content type."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(
                await _read(self, StrictRequest(_as_json(dict(request.scope)), request.receive))
            )

        return strict


class JsonOnlyRoute(APIRoute):
    """Strict JSON under `application/json` alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method in ("POST", "PUT", "PATCH") and content_type != "application/json":
                raise ContentTypeError("send this request with the header Content-Type: application/json")
            return await handler(await _read(self, StrictRequest(request.scope, request.receive)))

        return strict
