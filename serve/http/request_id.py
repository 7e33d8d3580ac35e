"""Every request gets an id made here; an id sent by the client is only ever a label in the log.

A client's id must not reach the engine: two clients that send the same one would get each other's answers
(CVE-2026-105755 in vLLM).
"""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATE_KEY = "hotswap_request_id"
CLIENT_ID_KEY = "hotswap_client_request_id"
_CLIENT_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def new_request_id() -> str:
    """An id that nobody can guess."""
    return f"req-{secrets.token_hex(12)}"


def request_id_of(scope: Scope) -> str:
    """The id of the request in this scope."""
    return str(scope.get("state", {}).get(STATE_KEY, ""))


class RequestIdMiddleware:
    """Gives each request its id and returns it as `X-Request-Id`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = new_request_id()
        state = scope.setdefault("state", {})
        state[STATE_KEY] = request_id
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _CLIENT_ID.fullmatch(value):
                state[CLIENT_ID_KEY] = value.decode("ascii")

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("X-Request-Id", request_id)
            await send(message)

        await self.app(scope, receive, tagged)
