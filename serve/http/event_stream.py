"""A stream of server-sent events that is no generation: without a deadline, ended by either side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bases.errors import HotswapError
from serve.http.errors import InternalError, body_of
from serve.http.request_id import request_id_of

logger = logging.getLogger("hotswap.http")

KEEP_ALIVE_SECONDS = 15.0  # proxies drop a connection that says nothing for a minute
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def encode_event(kind: str, fields: Any, *, event_id: int | None = None) -> bytes:
    """One server-sent event; `fields` are what JSON holds."""
    head = b"id: %d\n" % event_id if event_id is not None else b""
    return head + b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(fields))


class EventStream(Response):
    """Sends what `chunks` yields; an empty chunk says that there is no news.

    A client that leaves, or that reads nothing for `send_seconds`, ends it. After `limit_seconds` the stream
    ends at the next chunk.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        send_seconds: float,
        limit_seconds: float | None = None,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._chunks = chunks
        self._send_seconds = send_seconds
        self._limit_seconds = limit_seconds
        self._keep_alive_seconds = keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._stream(scope, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            ended = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(ended[0], Exception):
            raise ended[0]

    async def _stream(self, scope: Scope, send: Send) -> None:
        async with contextlib.aclosing(self._chunks) as chunks:
            try:
                # Before the first event is there, so that a client knows at once that it is heard.
                head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await self._put(send, head)
                await self._send_all(scope, chunks, send)
                await self._put(send, {"type": "http.response.body", "body": b""})
            except (TimeoutError, OSError):
                return  # nobody reads

    async def _send_all(self, scope: Scope, chunks: AsyncGenerator[bytes, None], send: Send) -> None:
        started = said = time.monotonic()
        error: HotswapError
        try:
            async for chunk in chunks:
                now = time.monotonic()
                if chunk or now - said >= self._keep_alive_seconds:
                    await self._put(send, _part(chunk or b": keep-alive\n\n"))
                    said = now
                if self._limit_seconds is not None and now - started >= self._limit_seconds and not chunk:
                    return
            return
        except HotswapError as failed:
            error = failed
        except OSError:
            raise
        except Exception:  # the request boundary: a bug must still end the stream with a reason
            logger.exception("request %s failed after its stream had begun", request_id_of(scope))
            error = InternalError("the server failed on this request")
        await self._put(send, _part(encode_event("error", body_of(error, request_id_of(scope)))))

    async def _put(self, send: Send, message: Any) -> None:
        async with asyncio.timeout(self._send_seconds):
            await send(message)


def _part(chunk: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
