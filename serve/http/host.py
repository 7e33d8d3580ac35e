"""Refuses requests for a name that this server does not have.

Bound to loopback it answers to loopback names alone, so that a web page cannot reach it under a name of its own
(DNS rebinding); everywhere a Host header that is not a host is refused before anything reads it (the "BadHost"
family, CVE-2026-48710).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.errors import error_body, error_response
from serve.http.request_id import request_id_of

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))(?::[0-9]{1,5})?")


class HostMiddleware:
    """Lets through well-formed Host headers, and of these only `allowed` when any are given."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str]) -> None:
        self.app = app
        self.allowed = frozenset(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._accepts(scope):
            message = "this server does not answer to that Host; --allowed-hosts names the accepted ones"
            body = error_body(400, "host_refused", message, request_id_of(scope))
            await error_response(scope, 400, body, {"Connection": "close"})(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _accepts(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return False
        match = _HOST.fullmatch(hosts[0])
        return match is not None and (not self.allowed or match["name"].lower() in self.allowed)
