"""Requests that ask for another protocol, over a real socket: they are answered as if they had not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.patience import patient
from tests.serve.conftest import RunningServer
from tests.serve.faults.client import http, refusal, strangers, undisturbed, wire

Run = Callable[..., Awaitable[RunningServer]]
# What Java's HttpClient sends with its first request.
JAVA = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
)
BODY = {"prompt": "stranger", "max_tokens": 2}


@pytest.mark.parametrize("pieces", [1, 2, 400], ids=["at once", "head and body apart", "byte by byte"])
async def test_a_request_that_asks_for_http_2_is_answered_with_its_body(
    running_server: Run, pieces: int
) -> None:
    server = await running_server()
    request = http("POST", "/generate", BODY, *JAVA)
    ends = {1: [], 2: [request.index(b"\r\n\r\n") + 4], 400: list(range(1, len(request)))}[pieces]
    async with undisturbed(server), wire(server) as line:
        for begin, end in zip([0, *ends], [*ends, len(request)], strict=True):
            await line.send(request[begin:end])
            await asyncio.sleep(0)
        answer = await line.answer()
        assert (answer.status, answer.json()["text"]) == (200, "base base ")
        await line.send(http("POST", "/generate", BODY))
        assert (await line.answer()).json()["text"] == "base base "
    assert len(strangers(server)) == 2


async def test_a_body_behind_the_wish_is_not_read_as_another_request(running_server: Run) -> None:
    server = await running_server()
    hidden = http("POST", "/generate", BODY)
    async with undisturbed(server), wire(server) as line:
        await line.send(http("POST", "/generate", hidden, *JAVA)[: -len(hidden)])
        await asyncio.sleep(0.05)  # the body comes by itself
        await line.send(hidden + http("GET", "/livez"))
        assert refusal(await line.answer())["code"] == "invalid_json"
        assert (await line.answer()).body == b"ok\n"
    assert strangers(server) == []


async def test_a_chunked_body_and_a_websocket_are_no_exceptions(running_server: Run) -> None:
    server = await running_server()
    raw = b'{"prompt": "stranger", "max_tokens": 2}'
    head = http("POST", "/generate", None, *JAVA, "Transfer-Encoding: chunked")
    wish = ("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    async with undisturbed(server), wire(server) as line:
        await line.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(raw), raw))
        assert (await line.answer()).json()["text"] == "base base "
        await line.send(http("GET", "/livez", None, *wish) * 3)
        assert [(await line.answer()).status for _ in range(3)] == [200] * 3


async def test_a_wish_hides_nothing_that_is_refused_without_it(running_server: Run) -> None:
    server = await running_server()
    for lengths in (
        ("Content-Length: 3", "Content-Length: 4"),
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
    ):
        async with undisturbed(server), wire(server) as line:
            await line.send(http("POST", "/generate", None, *JAVA, *lengths) + b"abc")
            assert refusal(await line.answer())["code"] == "invalid_http"
            async with asyncio.timeout(patient(5)):
                assert await line.closed()


async def test_a_tunnel_is_not_opened(running_server: Run) -> None:
    server = await running_server()
    async with undisturbed(server), wire(server) as line:
        await line.send(b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert refusal(await line.answer())["code"] == "invalid_http"
