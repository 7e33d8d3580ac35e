"""The body's limits, applied while it arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bases.errors import HotswapError
from serve.errors import BodyTimeoutError
from serve.http.body import BodyLimitMiddleware
from serve.http.errors import status_of

LIMIT = 100


class Echo:
    """Answers with what it received, or without having asked for it."""

    def __init__(self, *, asks: bool = True) -> None:
        self.asks = asks
        self.bodies: list[bytes] = []
        self.headers: list[tuple[bytes, bytes]] = []  # of the answer
        self.after: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.asks:
            message = await receive()
            assert not message.get("more_body", False)
            self.bodies.append(message["body"])
        if scope.get("listens"):
            self.after.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def send_body(
    chunks: list[bytes] | None,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    method: str = "POST",
    seconds: float = 30.0,
    listens: bool = False,
    asks: bool = True,
) -> tuple[int | None, dict[str, Any], Echo, int]:
    """(status, error, the application, messages read); `chunks` None: the client leaves half-way."""
    echo, reads = Echo(asks=asks), 0
    parts = [b"half"] if chunks is None else chunks or [b""]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": chunk, "more_body": chunks is None or place < len(parts) - 1}
        for place, chunk in enumerate(parts)
    ]

    async def receive() -> dict[str, Any]:
        nonlocal reads
        reads += 1
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": method, "headers": headers or [], "listens": listens}
    try:
        await BodyLimitMiddleware(echo, max_bytes=LIMIT, receive_seconds=seconds)(scope, receive, send)
    except HotswapError as error:  # what the application hears instead of a body, and answers with
        return status_of(error), {"code": error.code}, echo, reads
    echo.headers = sent[0]["headers"]
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], orjson.loads(body)["error"] if body else {}, echo, reads


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_a_body_is_passed_on_whole_or_refused_by_its_size(chunks: list[bytes]) -> None:
    status, error, echo, _ = asyncio.run(send_body(chunks))
    if sum(map(len, chunks)) <= LIMIT:
        assert status == 200
        assert echo.bodies == [b"".join(chunks)]
    else:
        assert (status, error["code"]) == (413, "body_too_large")
        assert echo.bodies == []


async def test_a_declared_length_above_the_limit_is_refused_before_a_byte_is_read() -> None:
    status, error, echo, reads = await send_body([b"x"], headers=[(b"content-length", b"101")])
    assert (status, error["code"], reads, echo.bodies) == (413, "body_too_large", 0, [])


async def test_a_false_length_does_not_help() -> None:
    status, _, echo, reads = await send_body([b"x" * 60] * 50, headers=[(b"content-length", b"10")])
    assert (status, echo.bodies) == (413, [])
    assert reads == 2  # the rest is never read


@pytest.mark.parametrize("value", [b"-1", b"1e3", b"", b"0x10", b"9" * 19, "\u0661".encode()])
async def test_a_length_that_is_no_number_is_refused(value: bytes) -> None:
    status, error, echo, _ = await send_body([b"x"], headers=[(b"content-length", value)])
    assert (status, error["code"], echo.bodies) == (422, "invalid_value", [])


async def test_a_body_that_does_not_come_in_time_is_refused() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        pytest.fail(f"{message} was sent")

    echo = Echo()
    scope = {"type": "http", "method": "POST", "headers": []}
    with pytest.raises(BodyTimeoutError):
        await BodyLimitMiddleware(echo, max_bytes=LIMIT, receive_seconds=0.01)(scope, never, send)
    assert echo.bodies == []


async def test_a_client_that_leaves_half_way_reaches_nobody() -> None:
    status, error, echo, _ = await send_body(None)
    assert (status, error["code"], echo.bodies) == (499, "client_gone", [])


async def test_a_body_that_the_application_does_not_ask_for_is_not_read() -> None:
    status, _, echo, reads = await send_body([b"x" * 60] * 50, asks=False)
    assert (status, reads, echo.headers) == (200, 0, [])


async def test_an_answer_to_a_client_that_waits_for_leave_to_send_its_body_ends_the_connection() -> None:
    """Whether the body or another request comes next cannot be told."""
    waits = [(b"content-length", b"1"), (b"expect", b"100-Continue")]
    _, _, refused, reads = await send_body([b"x"], headers=waits, asks=False)
    assert (refused.headers, reads) == ([(b"connection", b"close")], 0)
    _, _, answered, _ = await send_body([b"x"], headers=waits)
    assert (answered.headers, answered.bodies) == ([], [b"x"])


async def test_after_the_body_the_application_hears_the_client_leave() -> None:
    _, _, echo, _ = await send_body([b"x"], listens=True)
    assert echo.after == ["http.disconnect"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_methods_without_a_body_are_left_alone(method: str) -> None:
    status, _, echo, _ = await send_body([b"x"], method=method, headers=[(b"content-length", b"99999")])
    assert (status, echo.bodies) == (200, [b"x"])
