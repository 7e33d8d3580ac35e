"""Limits on the request body, applied while it arrives: its size, and the time it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import BodyTimeoutError, BodyTooLargeError, InvalidRequestError
from serve.http.errors import body_of, error_response, headers_of, status_of
from serve.http.request_id import request_id_of

_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class BodyLimitMiddleware:
    """Refuses a body above `max_bytes`, or one that is not complete after `receive_seconds`.

    A Content-Length above the limit is refused before a byte is read; a body without one, or with a false one,
    when it crosses the limit. The whole body is read before the application is called, so that no route ever
    waits for a slow sender. Only a request for which `streamed` is true passes as it is: its route asks for the
    key first, and then takes the body piece by piece within limits of its own.
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
            async with asyncio.timeout(self.receive_seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            error = BodyTimeoutError(f"the request body was not complete after {self.receive_seconds:g} s")
            await _refuse(error, scope, receive, send)
            return
        except (BodyTooLargeError, InvalidRequestError) as error:
            await _refuse(error, scope, receive, send)
            return
        if body is None:  # the client left before its request was complete
            return
        await self.app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        for name, value in scope["headers"]:
            if name == b"content-length":
                if not value.isdigit() or len(value) > 18:
                    raise InvalidRequestError("the Content-Length header is not a number of bytes")
                if int(value) > self.max_bytes:
                    raise self._too_large()
        chunks: list[bytes] = []
        total = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            total += len(chunk)
            if total > self.max_bytes:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"the request body is larger than {self.max_bytes} bytes")


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _refuse(
    error: BodyTooLargeError | BodyTimeoutError | InvalidRequestError,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    body = body_of(error, request_id_of(scope))
    headers = {**headers_of(error), "Connection": "close"}
    await error_response(scope, status_of(error), body, headers)(scope, receive, send)
