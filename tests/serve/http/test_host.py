"""Which Host headers are answered."""

from __future__ import annotations

from typing import Any

import pytest

from serve.http.host import LOOPBACK_NAMES, HostMiddleware


async def status_for(hosts: list[bytes], allowed: frozenset[str]) -> int:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"accept", b"*/*"), *((b"host", host) for host in hosts)]
    await HostMiddleware(app, allowed=allowed)({"type": "http", "headers": headers}, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:8000", b"127.0.0.1", b"127.0.0.1:80", b"[::1]", b"[::1]:8000"]
)
async def test_loopback_names_are_answered(host: bytes) -> None:
    assert await status_for([host], LOOPBACK_NAMES) == 200


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil", b"127.0.0.2", b"[::2]", b"0.0.0.0"],
)
async def test_other_names_are_not_answered_on_loopback(host: bytes) -> None:
    assert await status_for([host], LOOPBACK_NAMES) == 400
    assert await status_for([host], frozenset()) == 200


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b""],
        [b"localhost", b"localhost"],
        [b"localhost", b"evil.example"],
        [b"a/?x="],
        [b"localhost/"],
        [b"user@localhost"],
        [b"localhost:port"],
        [b"localhost:123456"],
        [b"localhost "],
        [b"local\thost"],
        [b"localhost\x00"],
        [b"-localhost"],
        ["löcalhost".encode()],
        [b"\xff"],
        [b"a" * 300],
        [b"[::1"],
        [b"[zz]"],
    ],
)
async def test_what_is_no_host_is_never_answered(hosts: list[bytes]) -> None:
    assert await status_for(hosts, frozenset()) == 400
    assert await status_for(hosts, LOOPBACK_NAMES) == 400


async def test_names_of_ones_own_are_compared_without_case() -> None:
    allowed = frozenset({"Api.Example"})
    assert await status_for([b"api.example:443"], allowed) == 200
    assert await status_for([b"localhost"], allowed) == 400


async def test_what_is_no_request_passes_through() -> None:
    called: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["type"])

    nothing: Any = None
    await HostMiddleware(app, allowed=LOOPBACK_NAMES)({"type": "lifespan"}, nothing, nothing)
    assert called == ["lifespan"]
