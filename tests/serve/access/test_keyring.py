"""The keys that are good now: known at once, believed for a while, forgotten when they are taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from adapters.errors import KeyNotFoundError, RegistryUnavailableError
from serve.access.api_key import make_key
from serve.access.keyring import KeyRing
from tests.patience import patient
from tests.serve.access.conftest import MortalTable, Time, add_key, key_of


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(patient(5)):
        while not condition():
            await asyncio.sleep(0.005)


def id_of(text: str) -> str:
    return text.split("_")[1]


async def test_a_key_is_good_as_soon_as_it_is_made_and_no_longer_when_it_is_revoked(ring: KeyRing) -> None:
    text = await add_key(ring, label="web", tenant="acme", adapters=("risk*",), requests_per_minute=7)
    known = ring.find(id_of(text))
    assert known is not None
    assert (known.caller.name, known.caller.tenant) == (f"key:{id_of(text)}", "acme")
    assert known.caller.may_use("risk-1")
    assert not known.caller.may_use(None)
    assert known.caller.limits.requests_per_minute == 7
    record = await ring.revoke(id_of(text), actor="root")
    assert record.revoked_at is not None
    assert ring.find(id_of(text)) is None
    await ring.refresh()
    assert ring.find(id_of(text)) is None
    assert (await ring.revoke(id_of(text), actor="root")).revoked_at == record.revoked_at
    with pytest.raises(KeyNotFoundError):
        await ring.revoke("0" * 16, actor="root")


async def test_what_another_gateway_does_is_known_after_the_next_look(
    ring: KeyRing, table: MortalTable, time: Time
) -> None:
    other = KeyRing(table, clock=time.clock, now=time.now)
    await ring.open()
    try:
        text = await add_key(other)
        await until(lambda: ring.find(id_of(text)) is not None)
        await other.revoke(id_of(text), actor="root")
        await until(lambda: ring.find(id_of(text)) is None)
    finally:
        await ring.close()


async def test_keys_are_read_only_when_one_was_changed(ring: KeyRing, table: MortalTable) -> None:
    for _ in range(5):
        await ring.refresh()
    assert table.reads == 1
    await add_key(ring)
    await ring.refresh()
    await ring.refresh()
    assert table.reads == 2
    assert len(ring) == 1


async def test_an_expired_key_is_good_no_more(ring: KeyRing, time: Time) -> None:
    text = await add_key(ring, expires_at=time.now() + timedelta(seconds=10))
    assert ring.find(id_of(text)) is not None
    time.seconds += 10
    assert ring.find(id_of(text)) is None
    await ring.refresh()
    assert ring.find(id_of(text)) is None


async def test_known_keys_stay_good_for_a_while_when_the_registry_is_silent(
    ring: KeyRing, table: MortalTable, time: Time
) -> None:
    text = await add_key(ring)
    revoked = await add_key(ring)
    await ring.revoke(id_of(revoked), actor="root")
    await ring.open()
    try:
        table.silent = True
        await until(lambda: ring._failing)
        time.seconds += 59
        assert ring.is_believed
        assert ring.find(id_of(text)) is not None
        assert ring.find(id_of(revoked)) is None
        with pytest.raises(RegistryUnavailableError):
            await ring.revoke(id_of(text), actor="root")
        assert ring.find(id_of(text)) is not None  # it was not written down: not revoked
        time.seconds += 2
        assert not ring.is_believed
        table.silent = False
        await until(lambda: ring.is_believed)
        assert ring.find(id_of(text)) is not None
    finally:
        await ring.close()


async def test_a_ring_that_was_never_read_is_not_believed(ring: KeyRing) -> None:
    assert not ring.is_believed


async def test_the_last_use_is_written_down_once_a_minute_and_at_the_end(
    ring: KeyRing, table: MortalTable, time: Time
) -> None:
    text = await add_key(ring)
    await ring.open()
    started = time.now()
    for _ in range(100):
        ring.note_use(id_of(text))
    assert table.get(id_of(text)).last_used_at is None
    time.seconds += 61
    await until(lambda: table.get(id_of(text)).last_used_at is not None)
    assert table.get(id_of(text)).last_used_at == started
    ring.note_use(id_of(text))
    await ring.close()
    assert table.get(id_of(text)).last_used_at == time.now()


async def test_a_use_that_could_not_be_written_down_is_written_later(
    ring: KeyRing, table: MortalTable, time: Time
) -> None:
    text = await add_key(ring)
    await ring.open()
    started = time.now()
    ring.note_use(id_of(text))
    table.silent = True
    time.seconds += 61
    await until(lambda: ring._failing)
    table.silent = False
    await ring.close()
    assert table.get(id_of(text)).last_used_at == started


async def test_making_and_revoking_are_in_the_audit_log_without_the_key(
    ring: KeyRing, table: MortalTable
) -> None:
    text = make_key().text
    await ring.create(key_of(text, label="web"), actor="admin")
    await ring.revoke(id_of(text), actor="key:root")
    await ring.revoke(id_of(text), actor="key:root")
    events = table._registry.list_events()
    assert [(e.event.action, e.event.actor, e.event.outcome) for e in events] == [
        ("revoke_key", "key:root", "done"),
        ("create_key", "admin", "done"),
    ]
    assert all(e.event.detail["key"] == id_of(text) for e in events)
    assert text[-64:] not in str(events)
