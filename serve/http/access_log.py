"""One log line per request: method, route, status, milliseconds, request id. No query, no body, no key."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.request_id import CLIENT_ID_KEY, request_id_of

logger = logging.getLogger("hotswap.access")

_QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
_MAX_PATH_CHARS = 120


class AccessLogMiddleware:
    """Logs when the last byte is out or the client is gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None
        returned = False

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
            returned = True
        finally:
            # Nothing was sent: the client left first, or a bug is on its way to the outermost handler.
            shown = status if status is not None else 499 if returned else 500
            path = scope["path"]
            level = logging.DEBUG if path in _QUIET_PATHS else logging.INFO
            logger.log(
                level,
                "%s %s %d",
                scope["method"],
                ascii(path[:_MAX_PATH_CHARS])[1:-1],
                shown,
                extra={
                    "request_id": request_id_of(scope),
                    "client_request_id": scope.get("state", {}).get(CLIENT_ID_KEY),
                    "milliseconds": round((time.perf_counter() - started) * 1000, 1),
                },
            )
