"""One request to an ASGI application, driven by hand: the test decides when the client reads and when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson


class AsgiCall:
    """Runs `app` on one request in a task of its own.

    `read` takes one message that the application sent. With `slow` the application's sends wait until somebody
    reads; `leave` is the client closing its connection.
    """

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        slow: bool = False,
    ) -> None:
        given = list(headers)
        if not any(name == b"host" for name, _ in given):
            given.append((b"host", b"127.0.0.1"))
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": given,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        whole = orjson.dumps(json) if body is None and json is not None else body or b""
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": whole, "more_body": False})
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue(1 if slow else 0)
        self.task = asyncio.create_task(app(self.scope, self._incoming.get, self.sent.put))

    def leave(self) -> None:
        """The client closes the connection."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    @property
    def unread(self) -> int:
        """Messages of the client that the application has not taken."""
        return self._incoming.qsize()

    async def read(self) -> dict[str, Any]:
        """The next message of the application."""
        return await self.sent.get()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        message = await self.read()
        assert message["type"] == "http.response.start"
        return message["status"], {
            name.decode().lower(): value.decode() for name, value in message["headers"]
        }

    async def rest(self) -> bytes:
        """Everything up to the end of the body."""
        chunks = []
        while True:
            message = await self.read()
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(chunks)


def events_of(text: str | bytes) -> list[tuple[str, dict[str, Any]]]:
    """(event, fields) of each server-sent event in a body."""
    found = []
    shown = text.decode() if isinstance(text, bytes) else text
    for block in shown.split("\n\n"):
        if block:
            name, _, data = block.partition("\ndata: ")
            found.append((name.removeprefix("event: "), orjson.loads(data)))
    return found
