"""Desired state beyond the alias: the version before, pins, traffic, and the number that counts changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters.errors import AdapterNotFoundError
from adapters.name import AdapterVersion
from adapters.registry.records import Event, NameRecord, NewVersion
from adapters.registry.registry import Registry

V1 = AdapterVersion("risk", "1" * 64)
V2 = AdapterVersion("risk", "2" * 64)
OTHER = AdapterVersion("legal", "1" * 64)


def add(registry: Registry, *versions: AdapterVersion) -> None:
    for version in versions:
        registry.add_version(NewVersion(version, 8, 100, "f" * 64, "here"))


def test_the_alias_remembers_what_it_meant_before(registry: Registry) -> None:
    add(registry, V1, V2)
    assert registry.set_alias(V1, expected_digest=None).previous_digest is None
    assert registry.set_alias(V2, expected_digest=V1.digest).previous_digest == V1.digest
    record = registry.name("risk")
    assert (record.live, record.previous) == (V2.digest, V1.digest)
    registry.set_alias(V2, expected_digest=V2.digest)
    assert registry.name("risk").previous == V1.digest, "a move to where it is already is none"


def test_pins_and_wishes_stay_until_they_are_taken_back(registry: Registry) -> None:
    add(registry, V1)
    assert registry.set_pinned(V1, True)
    assert not registry.set_pinned(V1, True)
    assert registry.set_loaded(V1, True)
    (record,) = registry.list_versions("risk")
    assert (record.pinned, record.loaded) == (True, True)
    registry.set_alias(V1, expected_digest=None)
    (record,) = registry.list_versions("risk")
    assert (record.pinned, record.loaded) == (True, False), "the alias keeps it now"
    assert registry.set_pinned(V1, False)
    assert not registry.set_loaded(V1, False)
    for change in (registry.set_pinned, registry.set_loaded):
        with pytest.raises(AdapterNotFoundError, match="risk@22222222"):
            change(V2, True)


def test_a_plan_is_kept_as_it_was_given(registry: Registry) -> None:
    add(registry, V1)
    assert registry.set_plan("risk", '{"shares": {}}')
    assert not registry.set_plan("risk", '{"shares": {}}')
    assert registry.name("risk").plan == '{"shares": {}}'
    assert registry.set_plan("risk", None)
    assert not registry.set_plan("risk", None)
    assert registry.name("risk").plan is None


def test_a_snapshot_holds_every_name_whole(registry: Registry) -> None:
    add(registry, V2, OTHER, V1)
    registry.set_alias(V2, expected_digest=None)
    registry.set_alias(V1, expected_digest=V2.digest)
    registry.set_plan("risk", "{}")
    snapshot = registry.snapshot()
    assert snapshot.revision == registry.revision()
    assert set(snapshot.names) == {"risk", "legal"}
    assert snapshot.names["risk"] == registry.name("risk")
    assert [record.version for record in snapshot.names["risk"].versions] == [V2, V1]
    assert registry.name("nobody") == NameRecord("nobody")
    assert not registry.name("nobody").known


def test_a_forgotten_name_leaves_nothing(registry: Registry) -> None:
    add(registry, V1, V2, OTHER)
    registry.set_alias(V2, expected_digest=None)
    registry.set_plan("risk", "{}")
    assert registry.forget_name("risk") == [V1, V2]
    assert not registry.name("risk").known
    assert registry.list_aliases() == []
    assert registry.holds_digest(V1.digest), "another name has the same content"
    assert not registry.holds_digest(V2.digest)
    assert registry.forget_name("risk") == []


CHANGES: dict[str, Callable[[Registry], object]] = {
    "a version": lambda r: add(r, V2),
    "an alias": lambda r: r.set_alias(V1, expected_digest=None),
    "a pin": lambda r: r.set_pinned(V1, True),
    "a wish": lambda r: r.set_loaded(V1, True),
    "a plan": lambda r: r.set_plan("risk", "{}"),
    "a removal": lambda r: r.remove_version(V1),
    "the end of a name": lambda r: r.forget_name("risk"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_change_is_counted(registry: Registry, what: str) -> None:
    add(registry, V1)
    before = registry.revision()
    CHANGES[what](registry)
    assert registry.revision() == before + 1


def test_what_changes_nothing_is_not_counted(registry: Registry) -> None:
    add(registry, V1)
    registry.set_alias(V1, expected_digest=None)
    before = registry.revision()
    add(registry, V1)
    registry.set_alias(V1, expected_digest=None)
    registry.set_pinned(V1, False)
    registry.set_plan("risk", None)
    registry.remove_version(V2)
    registry.append_event(Event("me", "load", "ok"))
    with pytest.raises(AdapterNotFoundError):
        registry.set_pinned(V2, True)
    assert registry.revision() == before


def test_changes_from_many_threads_are_all_counted(registry: Registry) -> None:
    versions = [AdapterVersion(f"name-{number}", f"{number:x}" * 64) for number in range(1, 7)]
    before = registry.revision()
    barrier = threading.Barrier(len(versions))

    def work(version: AdapterVersion) -> None:
        barrier.wait()
        add(registry, version)
        for _ in range(3):
            registry.set_pinned(version, True)
            registry.set_pinned(version, False)

    with ThreadPoolExecutor(len(versions)) as pool:
        list(pool.map(work, versions))
    assert registry.revision() == before + 7 * len(versions)
