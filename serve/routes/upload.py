"""`PUT /admin/adapters/{name}`: an adapter sent as a tar, for gateways whose disk the sender does not share."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from adapters.name import parse_alias
from bases.errors import HotswapError
from serve.errors import InvalidRequestError
from serve.http.errors import domain_response
from serve.http.strict_json import ContentTypeError
from serve.routes.admin import Name, load_answer
from serve.routes.dependencies import AdminDep, GatewayDep, find_caller
from serve.routes.documentation import ADMIN_ERRORS
from serve.running import ClientGoneError
from serve.schemas.admin import LoadAnswer

CONTENT_TYPE = "application/x-tar"
_PATH = re.compile(r"/admin/adapters/[^/]+")


def is_upload(scope: Scope) -> bool:
    """True for requests whose body this route takes piece by piece."""
    return scope["method"] == "PUT" and _PATH.fullmatch(scope["path"]) is not None


class UploadRoute(APIRoute):
    """Asks for the key and the content type before a byte of the body; whatever is refused ends the connection.

    What is left of a refused body would otherwise be read to be thrown away. The type is none that a web page
    may send to another site without the browser asking first, and neither is the method.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                await find_caller(request)
                content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if content_type != CONTENT_TYPE:
                    raise ContentTypeError(f"send the adapter as a tar with Content-Type: {CONTENT_TYPE}")
                return await handler(request)
            except HotswapError as error:
                response = domain_response(error, request)
                response.headers["Connection"] = "close"
                return response

        return guarded


router = APIRouter(prefix="/admin", route_class=UploadRoute, tags=["admin"], responses=ADMIN_ERRORS)


@router.put(
    "/adapters/{name}",
    summary="Send an adapter and load it, or replace what is there",
    status_code=201,
    responses={200: {"model": LoadAnswer, "description": "This version was live already."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "An uncompressed tar of adapter_config.json, adapter_model.safetensors and, if "
            "there are any, hotswap.json, hotswap_probe.json and README.md: plain files, no folders.",
            "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_adapter(
    name: Name, actor: AdminDep, gateway: GatewayDep, request: Request, response: Response
) -> LoadAnswer:
    """Receive, then as POST: check, store, load, probe, move the name. Nothing is left behind if it fails."""
    adapters = gateway.adapters
    parse_alias(name, base_name=adapters.board.base_name)
    adapters.check_open()
    async with (
        aclosing(_chunks(request)) as chunks,
        gateway.uploads.receive(
            chunks, content_length=_content_length(request), check_open=adapters.check_open
        ) as folder,
    ):
        outcome = await adapters.load_folder(name, folder, actor=actor)
    response.status_code = 201 if outcome.created else 200
    return load_answer(gateway, name, outcome)


async def _chunks(request: Request) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise ClientGoneError("the client closed the connection before the upload was complete") from None


def _content_length(request: Request) -> int | None:
    value = request.headers.get("content-length")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise InvalidRequestError("the Content-Length header is not a number of bytes")
    return int(value)
