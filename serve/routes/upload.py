"""`PUT /admin/adapters/{name}`: an adapter sent as a tar, for gateways whose disk the sender does not share."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from adapters.name import parse_alias
from bases.errors import HotswapError
from serve.errors import InvalidRequestError
from serve.http.errors import domain_response, json_response
from serve.http.strict_json import ContentTypeError
from serve.operations.operation import Answer, Operation
from serve.routes.admin import Name, load_answer
from serve.routes.dependencies import AdminDep, GatewayDep, call_admin, known_queries
from serve.routes.documentation import ADMIN_ERRORS
from serve.routes.operate import ACCEPTED, WaitingDep, answer_of, begin
from serve.running import ClientGoneError
from serve.schemas.admin import EXPECTED_PATTERN, LoadAnswer, ValidateAnswer

CONTENT_TYPE = "application/x-tar"
GZIP_TYPES = ("application/gzip", "application/x-gzip")
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
        handler = known_queries(self.dependant, super().get_route_handler())

        async def typed(request: Request) -> Response:
            _is_gzipped(request)
            return await handler(request)

        async def guarded(request: Request) -> Response:
            try:
                answer = await call_admin(request, typed)
            except HotswapError as error:
                response = domain_response(error, request)
            except RequestValidationError as error:
                response = await request.app.exception_handlers[RequestValidationError](request, error)
            else:
                return answer
            response.headers["Connection"] = "close"
            return response

        return guarded


router = APIRouter(prefix="/admin", route_class=UploadRoute, tags=["admin"], responses=ADMIN_ERRORS)


@router.put(
    "/adapters/{name}",
    summary="Send an adapter and load it, or replace what is there",
    status_code=201,
    response_model=LoadAnswer,
    responses={
        200: {
            "model": LoadAnswer | ValidateAnswer,
            "description": "This version answered already; or, with dry_run, what the check found.",
        },
        **ACCEPTED,
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A tar of adapter_config.json, adapter_model.safetensors and, if there are any, "
            "hotswap.json, hotswap_probe.json and README.md: plain files, no folders. It may be compressed with "
            "gzip: Content-Encoding: gzip, or Content-Type: application/gzip.",
            "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_adapter(
    name: Name,
    actor: AdminDep,
    gateway: GatewayDep,
    request: Request,
    waiting: WaitingDep,
    promote: Annotated[
        bool,
        Query(description="false: load it under its version's name alone, and leave the name where it is."),
    ] = True,
    expected_live: Annotated[
        str | None,
        Query(
            min_length=4,
            max_length=129,
            pattern=EXPECTED_PATTERN,
            description="Version that the name has to mean now, or `none`. Otherwise 409, and nothing is done.",
        ),
    ] = None,
    dry_run: Annotated[bool, Query(description="Check it alone: nothing is stored or loaded.")] = False,
) -> Response:
    """Receive, then as POST: check, store, load, probe, move the name. Nothing is left behind if it fails.

    A client that leaves while it sends ends the upload; one that leaves later ends nothing.
    """
    adapters = gateway.adapters
    parse_alias(name, base_name=adapters.board.base_name)
    adapters.check_open()
    async with AsyncExitStack() as stack, aclosing(_chunks(request)) as chunks:
        upload = await stack.enter_async_context(
            gateway.uploads.receive(
                chunks,
                content_length=_content_length(request),
                check_open=adapters.check_open,
                gzipped=_is_gzipped(request),
            )
        )
        if dry_run:
            report = await adapters.validate_folder(upload.folder, actor=actor)
            return json_response(200, report.to_dict())
        # From here on the folder is the operation's, which outlives a client that leaves.
        held = stack.pop_all()

        async def work(operation: Operation) -> Answer:
            async with held:
                operation.enter("check")
                outcome = await adapters.load_folder(
                    name, upload.folder, actor=actor, promote=promote, expected_live=expected_live
                )
                return load_answer(gateway, name, outcome)

        begun = False
        try:
            operation, begun = await begin(
                gateway,
                request,
                waiting,
                action="load",
                name=name,
                actor=actor,
                asked={"sha256": upload.sha256, "promote": promote, "expected_live": expected_live},
                work=work,
            )
        finally:
            if not begun:
                await held.aclose()
    await operation.wait(waiting.seconds)
    return answer_of(operation, request)


async def _chunks(request: Request) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise ClientGoneError("the client closed the connection before the upload was complete") from None


def _is_gzipped(request: Request) -> bool:
    """Whether the body is a gzip of a tar. Raises ContentTypeError for what is neither."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if content_type not in (CONTENT_TYPE, *GZIP_TYPES):
        raise ContentTypeError(
            f"send the adapter as a tar with Content-Type: {CONTENT_TYPE}, or as a tar.gz with "
            f"{GZIP_TYPES[0]}"
        )
    if encoding not in ("identity", "gzip") or (encoding == "gzip" and content_type in GZIP_TYPES):
        raise ContentTypeError("the only Content-Encoding that is taken is gzip, once")
    return encoding == "gzip" or content_type in GZIP_TYPES


def _content_length(request: Request) -> int | None:
    value = request.headers.get("content-length")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 18):
        raise InvalidRequestError("the Content-Length header is not a number of bytes")
    return int(value)
