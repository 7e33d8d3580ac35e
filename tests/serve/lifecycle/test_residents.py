"""The number of adapters in the engine: asked for each time, and not waited for while the engine computes."""

from __future__ import annotations

import asyncio

import pytest

from serve.errors import EngineDeadError
from serve.lifecycle.residents import Residents


class BusyEngine:
    """Answers when `free` is set, with `held`."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None
        self.asked = 0

    async def resident_adapters(self) -> set[int]:
        self.asked += 1
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return self.held


async def test_an_engine_that_answers_is_believed_each_time() -> None:
    engine = BusyEngine()
    residents = Residents(engine.resident_adapters, patience_seconds=30)
    for held in ({1}, {1, 2}, set[int]()):
        engine.held = held
        assert await residents.count() == len(held)


async def test_one_that_computes_is_asked_once_and_its_last_answer_stands() -> None:
    engine = BusyEngine()
    residents = Residents(engine.resident_adapters, patience_seconds=0)
    engine.held = {1, 2}
    assert await residents.count() == 2
    engine.free.clear()
    engine.held = {1, 2, 3}
    both = list(await asyncio.gather(residents.count(), residents.count()))
    assert both == [2, 2]
    assert engine.asked == 2
    patient = Residents(engine.resident_adapters, patience_seconds=30)
    first = asyncio.create_task(patient.count())  # there is no answer before to give
    engine.free.set()
    assert await first == 3
    assert await patient.count() == 3


async def test_an_engine_that_fails_is_an_error_to_whoever_waits_and_to_nobody_else() -> None:
    engine = BusyEngine()
    residents = Residents(engine.resident_adapters, patience_seconds=0)
    engine.free.clear()
    engine.error = EngineDeadError("it is dead")
    waiting = asyncio.create_task(residents.count())
    await asyncio.sleep(0)
    engine.free.set()
    with pytest.raises(EngineDeadError):
        await waiting
    engine.error = None
    assert await residents.count() == 0


async def test_a_client_that_leaves_does_not_end_the_question_of_the_others() -> None:
    engine = BusyEngine()
    residents = Residents(engine.resident_adapters)
    engine.free.clear()
    engine.held = {7}
    leaves, stays = asyncio.create_task(residents.count()), asyncio.create_task(residents.count())
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.wait({leaves})
    engine.free.set()
    assert (await stays, engine.asked) == (1, 1)


async def test_closing_leaves_no_question_behind() -> None:
    engine = BusyEngine()
    residents = Residents(engine.resident_adapters, patience_seconds=0)
    await residents.count()
    engine.free.clear()
    await residents.count()
    await residents.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
