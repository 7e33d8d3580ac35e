"""One log line per request: what was asked, who answered, how long it took. No query, no body, no key, no text."""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access.caller import BASE_NAME
from serve.http.exchange import RECORD_KEY, Record
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
            state = scope.get("state", {})
            logger.log(
                level,
                "%s %s %d",
                scope["method"],
                ascii(path[:_MAX_PATH_CHARS])[1:-1],
                shown,
                extra={
                    "request_id": request_id_of(scope),
                    "client_request_id": state.get(CLIENT_ID_KEY),
                    "status": shown,
                    **_of_generation(state.get(RECORD_KEY)),
                    "milliseconds": round((time.perf_counter() - started) * 1000, 1),
                },
            )


def _of_generation(record: Record | None) -> dict[str, Any]:
    """What is known of a request that asked for tokens."""
    if record is None:
        return {}
    return {
        "adapter": (record.version or BASE_NAME) if record.adapter_resolved else None,
        "caller": record.caller.name,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "queue_ms": _ms(record.queue_seconds),
        "ttft_ms": _ms(record.ttft_seconds),
        # The status of a stream is out before anything can go wrong with it.
        "error": getattr(record.error, "code", "internal_error") if record.error is not None else None,
    }


def _ms(seconds: float | None) -> float | None:
    return round(seconds * 1000, 1) if seconds is not None else None
