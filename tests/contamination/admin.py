"""Whoever asks the admin API of the server under test: every request gets an answer, or is a fault.

A kept connection may be closed in the moment in which a client, held up in between, writes into it: by the server
or by httpx, whose time for it is over. Such a request is sent again, once, which is safe: each verb bears an
idempotency key, so that the second sending is answered by what the first one began. On a connection that was made
for the request, or once an answer has begun, a connection that breaks is what it looks like.
"""

from __future__ import annotations

import itertools
from typing import Any

import httpx

_KEY = "contamination-{}"


class Admin:
    """One client of the admin API. Belongs to one event loop."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.repeated = 0  # requests whose kept connection was closed under them
        self._client = client
        self._numbers = itertools.count()

    async def get(self, path: str) -> httpx.Response:
        """What is there. Raises httpx.TransportError."""
        return await self.request("GET", path)

    async def request(
        self, method: str, path: str, *, body: Any = None, seconds: float | None = None
    ) -> httpx.Response:
        """One request, done once; `seconds` to wait for its answer. Raises httpx.TransportError."""
        headers = {} if method == "GET" else {"Content-Type": "application/json"}
        if method != "GET":
            headers["Idempotency-Key"] = _KEY.format(next(self._numbers))
        timeout = httpx.USE_CLIENT_DEFAULT if seconds is None else seconds
        for _ in range(2):
            line = _Line()
            extensions = {"trace": line.note}
            try:
                return await self._client.request(
                    method, path, json=body, headers=headers, extensions=extensions, timeout=timeout
                )
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
                if line.is_new or line.has_answered:
                    raise
                broken = error
                self.repeated += 1
        raise broken


class _Line:
    """What became of the connection of one request."""

    def __init__(self) -> None:
        self.is_new = False
        self.has_answered = False

    async def note(self, event: str, _: Any) -> None:
        self.is_new |= event.startswith("connection.connect_")
        self.has_answered |= event == "http11.receive_response_headers.complete"
