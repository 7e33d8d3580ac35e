"""The log of events: written in order, read on from anywhere, and never in the way of who notes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from adapters.errors import RegistryUnavailableError
from adapters.registry.records import Event, EventRecord
from adapters.registry.registry import Registry
from serve.errors import BusyError
from serve.observability import events
from serve.observability.events import EventLog
from tests.patience import patient
from tests.serve.conftest import migrated_registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    path = tmp_path / "registry.db"
    path.write_bytes(migrated_registry())
    with Registry(f"sqlite:///{path}") as opened:
        yield opened


@pytest.fixture
async def log(registry: Registry) -> AsyncIterator[EventLog]:
    made = EventLog(registry, poll_seconds=0.01, retry_seconds=0.01)
    yield made
    await made.close()


def event(number: int, action: str = "load") -> Event:
    return Event("me", action, "done", "risk", detail={"n": number})


async def read(log: EventLog, after_id: int, count: int) -> list[EventRecord]:
    found: list[EventRecord] = []
    async with asyncio.timeout(patient(10)), aclosing(log.follow(after_id)) as batches:
        async for batch in batches:
            found += batch
            if len(found) >= count:
                return found
    return found


async def test_events_are_written_in_their_order_in_few_steps(log: EventLog, registry: Registry) -> None:
    for number in range(50):
        log.note(event(number))
    await log.flush()
    assert [record.event.detail["n"] for record in registry.events_after(0)] == list(range(50))
    assert len({record.at for record in registry.events_after(0)}) <= 2


async def test_a_reader_begins_behind_any_event_and_goes_on_with_what_comes(log: EventLog) -> None:
    for number in range(3):
        log.note(event(number))
    await log.flush()
    first = await read(log, 0, 3)
    reading = asyncio.create_task(read(log, first[0].id, 3))
    await asyncio.sleep(0)
    log.note(event(3))
    assert [record.event.detail["n"] for record in await reading] == [1, 2, 3]


async def test_a_reader_finds_what_another_gateway_wrote(log: EventLog, registry: Registry) -> None:
    reading = asyncio.create_task(read(log, 0, 1))
    await asyncio.sleep(0)
    await asyncio.to_thread(registry.append_event, event(7))
    assert [record.event.detail["n"] for record in await reading] == [7]


async def test_a_reader_ends_with_the_streams_when_it_has_read_all(log: EventLog) -> None:
    log.note(event(0))
    await log.flush()
    log.end_streams()
    assert len(await read(log, 0, 99)) == 1


async def test_no_more_than_so_many_read(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_READERS", 1)
    async with aclosing(log.follow(0)) as one:
        await anext(one)
        with pytest.raises(BusyError):
            await anext(log.follow(0))
    async with aclosing(log.follow(0)) as another:
        assert await anext(another) == []


async def test_what_a_registry_that_does_not_answer_missed_is_written_later(
    log: EventLog, registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(events, "MAX_WAITING", 2)

    def unavailable(batch: object) -> None:
        loop.call_soon_threadsafe(asked.set)
        raise RegistryUnavailableError("it does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(registry, "append_events", unavailable)
        for number in range(3):
            log.note(event(number))
        await asked.wait()
    assert "was not written down: too many wait" in caplog.text
    await log.flush()
    written = registry.events_after(0)
    assert [record.event.detail for record in written] == [{"n": 0}, {"n": 1}, {"count": 1}]
    assert written[-1].event.outcome == "events_lost"


async def test_what_is_lost_while_others_are_written_is_counted_and_nothing_is_written_twice(
    log: EventLog, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_WAITING", 2)
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    append = registry.append_events

    def slowly(batch: Sequence[Event]) -> list[EventRecord]:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(patient(10))
        return append(batch)

    monkeypatch.setattr(registry, "append_events", slowly)
    log.note(event(0))
    log.note(event(1))
    await begun.wait()
    log.note(event(2))  # no room for it, and the registry is at the others already
    go_on.set()
    await log.flush()
    log.note(event(3))
    await log.flush()
    written = [record.event.detail for record in registry.events_after(0)]
    assert written == [{"n": 0}, {"n": 1}, {"n": 3}, {"count": 1}]


async def test_closing_does_not_wait_for_a_registry_that_does_not_answer(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(registry, retry_seconds=3600)

    def unavailable(batch: object) -> None:
        raise RegistryUnavailableError("it does not answer")

    monkeypatch.setattr(registry, "append_events", unavailable)
    log.note(event(0))
    async with asyncio.timeout(patient(10)):
        await log.close()
    assert "were not written down yet: it does not answer" in caplog.text


async def test_listeners_hear_each_event_at_once(log: EventLog) -> None:
    heard: list[Event] = []
    log.listen(heard.append)
    log.note(event(1))
    assert heard == [event(1)]


async def test_readers_hear_the_last_event_and_then_the_end(log: EventLog) -> None:
    reading = asyncio.create_task(read(log, 0, 99))
    await asyncio.sleep(0)
    log.note(event(1))
    log.end_soon()
    assert [record.event.detail["n"] for record in await reading] == [1]


async def test_old_steps_of_versions_are_forgotten_now_and_then_and_nothing_else_is(
    log: EventLog, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_STEPS_AMONG", 4)
    monkeypatch.setattr(events, "_PRUNE_EVERY", 10)
    for number in range(5):
        log.note(event(number))
        log.note(event(number, events.STATE_ACTION))
        await log.flush()
    found = [(record.event.action, record.event.detail["n"]) for record in registry.events_after(0)]
    assert [number for action, number in found if action == "load"] == list(range(5))
    assert [number for action, number in found if action == events.STATE_ACTION] == [3, 4]
