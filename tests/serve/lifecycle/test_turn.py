"""A probe that is not answered keeps new work from the engine until it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serve.errors import DeadlineExceededError
from serve.lifecycle.turn import Turn


class Door:
    """Notes when new work was kept out."""

    def __init__(self) -> None:
        self.shut = asyncio.Event()
        self.opened = asyncio.Event()
        self.times = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.times += 1
        self.shut.set()
        try:
            yield
        finally:
            self.opened.set()


async def test_a_probe_that_is_answered_holds_nobody() -> None:
    door = Door()

    async def work() -> str:
        return "done"

    assert await Turn(door.hold).take(work()) == "done"
    assert door.times == 0


async def test_a_probe_without_an_answer_holds_new_work_until_it_is_through() -> None:
    door = Door()

    async def work() -> str:
        await door.shut.wait()  # the slot comes free because nothing new comes
        return "done"

    assert await Turn(door.hold, patience_seconds=0.001).take(work()) == "done"
    assert (door.times, door.opened.is_set()) == (1, True)


async def test_a_long_probe_lets_new_work_in_again_while_it_goes_on() -> None:
    door = Door()
    turn = Turn(door.hold, patience_seconds=0.001, hold_seconds=0.002)

    async def work() -> str:
        await door.shut.wait()
        while not door.opened.is_set():
            turn.answered()
            await asyncio.sleep(0)
        return "done"

    assert await turn.take(work()) == "done"


async def test_a_probe_that_is_never_answered_ends_with_a_deadline() -> None:
    door = Door()
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(DeadlineExceededError, match=r"within 0\.002 s"):
        await Turn(door.hold, patience_seconds=0.001, limit_seconds=0.002).take(work())
    assert ended.is_set()
    assert door.opened.is_set()


async def test_a_cancelled_probe_ends_its_work_and_its_hold() -> None:
    door = Door()
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(Turn(door.hold, patience_seconds=0.001).take(work()))
    await door.shut.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ended.is_set(), door.opened.is_set()) == (True, True)


async def test_the_work_s_own_failure_comes_out() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Turn(Door().hold).take(work())
