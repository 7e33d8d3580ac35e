"""Whoever asks again does so only where it is safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.contamination.admin import Admin
from tests.patience import patient

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def asking(answers: list[list[bytes | None]]) -> AsyncIterator[tuple[Admin, list[bytes]]]:
    """A client, and the heads that its server got; each list is what one connection answers, None a closed one."""
    heads: list[bytes] = []
    connections = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in next(connections):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                break
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=patient(10)) as client:
        yield Admin(client), heads


def key_of(head: bytes) -> bytes:
    [key] = [line for line in head.split(b"\r\n") if line.lower().startswith(b"idempotency-key:")]
    return key


async def test_a_verb_whose_kept_connection_is_closed_under_it_is_sent_again_with_its_key() -> None:
    async with asking([[ANSWER, None], [ANSWER]]) as (admin, heads):
        await admin.request("POST", "/first")
        assert (await admin.request("POST", "/second")).text == "ok"
        assert admin.repeated == 1
        first, second, again = heads
        assert key_of(second) == key_of(again) != key_of(first)


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ([[None]], 1),
        ([[ANSWER, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno"]], 2),
        ([[ANSWER, None], [None]], 2),
    ],
    ids=["on a connection of its own", "in the middle of its answer", "twice"],
)
async def test_what_else_breaks_is_said(answers: list[list[bytes | None]], requests: int) -> None:
    async with asking(answers) as (admin, _):
        for _ in range(requests - 1):
            await admin.get("/before")
        with pytest.raises(httpx.TransportError):
            await admin.get("/then")
