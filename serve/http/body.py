"""Limits on the request body, applied while it arrives: its size, and the time it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import BodyTimeoutError, BodyTooLargeError, InvalidRequestError
from serve.http.errors import body_of, error_response, headers_of, status_of
from serve.http.request_id import request_id_of
from serve.running import ClientGoneError

_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class BodyLimitMiddleware:
    """Refuses a body above `max_bytes`, or one that is not complete `receive_seconds` after it was asked for.

    A Content-Length above the limit is refused before a byte is read; a body without one, or with a false one,
    when it crosses the limit. Nothing is read before the application asks, which looks at path, method and key
    first: whoever may not be answered cannot make the gateway hold a body. It then gets the whole body at once, so
    that no route is left with half of one. Only a request for which `streamed` is true passes as it is: its route
    takes the body piece by piece within limits of its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        receive_seconds: float,
        streamed: Callable[[Scope], bool] = lambda _: False,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.receive_seconds = receive_seconds
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _METHODS_WITH_BODY or self.streamed(scope):
            await self.app(scope, receive, send)
            return
        try:
            self._check_length(scope)
        except (BodyTooLargeError, InvalidRequestError) as error:
            headers = {**headers_of(error), "Connection": "close"}
            body = body_of(error, request_id_of(scope))
            await error_response(scope, status_of(error), body, headers)(scope, receive, send)
            return
        asked = False

        async def whole() -> Message:
            nonlocal asked
            if asked:
                return await receive()
            asked = True
            return {"type": "http.request", "body": await self._read(receive), "more_body": False}

        async def ending(message: Message) -> None:
            # A client that waits for leave to send its body may now send it or not: what comes next on this
            # connection could be either (RFC 9110, 10.1.1).
            if message["type"] == "http.response.start" and not asked and _waits_for_leave(scope):
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self.app(scope, whole, ending)

    def _check_length(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length":
                if not value.isdigit() or len(value) > 18:
                    raise InvalidRequestError("the Content-Length header is not a number of bytes")
                if int(value) > self.max_bytes:
                    raise self._too_large()

    async def _read(self, receive: Receive) -> bytes:
        """The whole body. Raises BodyTimeoutError, BodyTooLargeError, ClientGoneError."""
        chunks: list[bytes] = []
        total = 0
        try:
            async with asyncio.timeout(self.receive_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError(
                            "the client closed the connection before its request was complete"
                        )
                    chunk = message.get("body", b"")
                    total += len(chunk)
                    if total > self.max_bytes:
                        raise self._too_large()
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise BodyTimeoutError(
                f"the request body was not complete after {self.receive_seconds:g} s"
            ) from None

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the request body is larger than {self.max_bytes} bytes")


def _waits_for_leave(scope: Scope) -> bool:
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])
