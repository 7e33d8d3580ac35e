"""Sending within a limit is awaiting within a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from serve.http.send_limit import within

LONG = 60.0


async def test_what_waits_for_nobody_is_sent_without_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    async def send() -> None:
        sent.append(1)

    monkeypatch.setattr(asyncio, "timeout", lambda _: pytest.fail("a timer was made"))
    await within(send(), LONG)
    assert sent == [1]


async def test_what_waits_goes_on_where_it_was() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    steps: list[str] = []

    async def send() -> None:
        steps.append("begun")
        await first.wait()
        steps.append("in between")
        await second.wait()
        steps.append("done")

    task = asyncio.create_task(within(send(), LONG))
    for event, expected in ((first, ["begun"]), (second, ["begun", "in between"])):
        while steps != expected:
            await asyncio.sleep(0)
        event.set()
    await task
    assert steps[-1] == "done"


async def test_a_future_is_awaited_too() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await within(future, LONG)
    assert future.done()


def _coroutine(future: asyncio.Future[None]) -> Awaitable[None]:
    async def send() -> None:
        await future

    return send()


@pytest.mark.parametrize("make", [_coroutine, lambda future: future])
async def test_who_waits_too_long_is_cut_off(make: Callable[[asyncio.Future[None]], Awaitable[None]]) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await within(make(future), 0.001)
    assert future.cancelled()


async def test_what_the_sending_raises_comes_out_before_and_after_it_waits() -> None:
    async def send(*, wait: bool) -> None:
        if wait:
            await asyncio.sleep(0)
        raise OSError("gone")

    for wait in (False, True):
        with pytest.raises(OSError, match="gone"):
            await within(send(wait=wait), LONG)


async def test_a_cancellation_reaches_the_sending() -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def send() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
            raise

    task = asyncio.create_task(within(send(), LONG))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told.is_set()
