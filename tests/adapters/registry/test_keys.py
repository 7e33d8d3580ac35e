"""API keys on each database: what is kept, what is counted as a change, and what two gateways see of each other."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.errors import KeyNotFoundError, RegistryError
from adapters.registry.keys import KeyTable, NewKey
from adapters.registry.registry import Registry

WHOLE = {
    "admin": True,
    "metrics": True,
    "adapters": ("risk*", "base"),
    "weight": 2.5,
    "requests_per_minute": 1,
    "tokens_per_minute": 2,
    "concurrency": 3,
    "max_tokens": 4,
    "expires_at": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
}


def new_key(number: int, **fields: Any) -> NewKey:
    return NewKey(f"{number:016x}", f"{number:064x}", f"key {number}", "acme", **fields)


@pytest.fixture
def table(registry: Registry) -> KeyTable:
    return KeyTable(registry)


@pytest.mark.parametrize("fields", [{}, {"adapters": ()}, WHOLE])
def test_a_key_comes_back_as_it_was_added(table: KeyTable, fields: dict[str, Any]) -> None:
    key = new_key(1, **fields)
    added = table.add(key, actor="admin")
    assert added.key == key
    assert (added.created_by, added.revoked_at, added.last_used_at) == ("admin", None, None)
    assert table.get(key.id) == added
    assert table.list_all() == [added]
    assert table.read_valid(None)[1] == [added]


def test_two_keys_cannot_have_one_id(table: KeyTable) -> None:
    table.add(new_key(1), actor="admin")
    with pytest.raises(RegistryError):
        table.add(new_key(1), actor="admin")
    assert len(table.list_all()) == 1


def test_a_revoked_key_stays_in_the_list_and_is_no_longer_valid(table: KeyTable) -> None:
    for number in (1, 2):
        table.add(new_key(number), actor="admin")
    revoked = table.revoke(new_key(1).id, actor="admin")
    assert revoked.revoked_at is not None
    assert table.revoke(new_key(1).id, actor="other") == revoked
    assert {record.key.id: record.revoked_at is None for record in table.list_all()} == {
        new_key(1).id: False,
        new_key(2).id: True,
    }
    _, valid = table.read_valid(None)
    assert valid is not None
    assert [record.key.id for record in valid] == [new_key(2).id]
    with pytest.raises(KeyNotFoundError):
        table.revoke("f" * 16, actor="admin")
    with pytest.raises(KeyNotFoundError):
        table.get("f" * 16)


def test_only_changes_raise_the_revision_and_not_those_of_the_desired_state(
    table: KeyTable, registry: Registry
) -> None:
    desired = registry.revision()
    first, _ = table.read_valid(None)
    assert table.read_valid(first) == (first, None)
    table.add(new_key(1), actor="admin")
    second, keys = table.read_valid(first)
    assert second > first
    assert keys is not None
    table.note_uses({new_key(1).id: datetime.now(UTC)})
    assert table.read_valid(second) == (second, None)
    table.revoke(new_key(1).id, actor="admin")
    third, keys = table.read_valid(second)
    assert (third > second, keys) == (True, [])
    assert registry.revision() == desired


def test_the_last_use_is_kept(table: KeyTable) -> None:
    table.add(new_key(1), actor="admin")
    moment = datetime.now(UTC) - timedelta(hours=1)
    table.note_uses({new_key(1).id: moment, "f" * 16: moment})
    assert table.get(new_key(1).id).last_used_at == moment


def test_changes_at_the_same_time_are_all_seen(table: KeyTable, registry: Registry, url: str) -> None:
    """A reader that follows the revision misses none, whatever the order of the commits."""
    seen: set[str] = set()
    revision: int | None = None

    def add(first: int) -> None:
        with Registry(url) as other:
            for number in range(first, first + 5):
                KeyTable(other).add(new_key(number), actor="admin")

    threads = [threading.Thread(target=add, args=(100 * number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    alive = True
    while alive:
        alive = any(thread.is_alive() for thread in threads)
        revision, keys = table.read_valid(revision)
        seen |= {record.key.id for record in keys or ()}
    assert seen == {record.key.id for record in table.list_all()}
    assert len(seen) == 15
