"""A stream of events: a head at once, comments while nothing happens, one error when it fails, two ways to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from serve.errors import EngineNotReadyError
from serve.http.event_stream import EventStream, encode_event
from tests.patience import patient
from tests.serve.asgi_call import AsgiCall, events_of

SECONDS = patient(10)


class Chunks:
    """Chunks that the test hands over one by one; None ends them, an exception is raised."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.closed = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            while (chunk := await self.queue.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed = True

    def give(self, *chunks: bytes | Exception | None) -> None:
        for chunk in chunks:
            self.queue.put_nowait(chunk)


@pytest.fixture
def chunks() -> Chunks:
    return Chunks()


@pytest.fixture
def call(chunks: Chunks) -> Callable[..., AsgiCall]:
    def begin(*, slow: bool = False, **options: Any) -> AsgiCall:
        options.setdefault("send_seconds", SECONDS)
        return AsgiCall(EventStream(chunks(), **options), "GET", "/events", slow=slow)

    return begin


def test_an_event_is_its_number_its_kind_and_json() -> None:
    assert encode_event("load", {"a": "x\ny"}, event_id=7) == b'id: 7\nevent: load\ndata: {"a":"x\\ny"}\n\n'
    assert encode_event("load", []) == b"event: load\ndata: []\n\n"


async def test_the_head_comes_before_the_first_event(call: Callable[..., AsgiCall], chunks: Chunks) -> None:
    stream = call()
    status, headers = await stream.head()
    assert (status, headers["content-type"], headers["x-accel-buffering"]) == (
        200,
        "text/event-stream; charset=utf-8",
        "no",
    )
    assert "content-length" not in headers
    chunks.give(b"one", b"", b"two", None)
    assert await stream.rest() == b"onetwo"
    await stream.task
    assert chunks.closed


async def test_a_comment_keeps_a_quiet_stream_alive(call: Callable[..., AsgiCall], chunks: Chunks) -> None:
    stream = call(keep_alive_seconds=0.0)
    await stream.head()
    chunks.give(b"", b"", b"one", None)
    assert await stream.rest() == b": keep-alive\n\n" * 2 + b"one"


async def test_at_its_limit_it_ends_when_there_is_no_news(
    call: Callable[..., AsgiCall], chunks: Chunks
) -> None:
    stream = call(limit_seconds=0.0)
    await stream.head()
    chunks.give(b"one", b"two", b"", b"three")
    assert await stream.rest() == b"onetwo"
    await stream.task
    assert chunks.closed


async def test_what_fails_is_one_error_event_and_the_end(
    call: Callable[..., AsgiCall], chunks: Chunks, caplog: pytest.LogCaptureFixture
) -> None:
    for error, code in (
        (EngineNotReadyError("not now"), "engine_not_ready"),
        (KeyError("a bug"), "internal_error"),
    ):
        chunks.closed = False
        stream = call()
        await stream.head()
        chunks.give(b"event: load\ndata: {}\n\n", error)
        events = events_of(await stream.rest())
        assert [name for name, _ in events] == ["load", "error"]
        assert events[1][1]["error"]["code"] == code
    assert "a bug" in caplog.text


async def test_a_client_that_leaves_ends_it(call: Callable[..., AsgiCall], chunks: Chunks) -> None:
    stream = call()
    await stream.head()
    stream.leave()
    async with asyncio.timeout(SECONDS):
        await stream.task
    assert chunks.closed


async def test_a_client_that_reads_nothing_ends_it(call: Callable[..., AsgiCall], chunks: Chunks) -> None:
    stream = call(slow=True, send_seconds=0.02)
    chunks.give(b"one", b"two", b"three")
    async with asyncio.timeout(SECONDS):
        await stream.task
    assert chunks.closed
