from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.errors import AdapterConflictError, AdapterNotFoundError, RegistryError
from adapters.name import AdapterVersion, parse_reference
from adapters.registry.records import Event, NewVersion
from adapters.registry.registry import Registry

V1 = AdapterVersion("risk", "1" * 64)
V2 = AdapterVersion("risk", "2" * 64)
OTHER = AdapterVersion("legal", "1" * 64)


def new(version: AdapterVersion, **changes) -> NewVersion:
    values: dict[str, Any] = {
        "rank": 8,
        "num_bytes": 10_000_000_000,
        "base_fingerprint": "f" * 64,
        "source": "risk/v1",
    }
    return NewVersion(version, **(values | changes))


def test_a_version_comes_back_as_it_was_added(registry):
    before = datetime.now(UTC)
    added = registry.add_version(new(V1))
    assert (added.version, added.rank, added.num_bytes) == (V1, 8, 10_000_000_000)
    assert (added.base_fingerprint, added.source) == ("f" * 64, "risk/v1")
    assert added.created_at.utcoffset() == timedelta(0)
    assert before <= added.created_at <= datetime.now(UTC)
    assert registry.list_versions() == [added]


def test_adding_a_known_version_returns_it_as_it_is(registry):
    added = registry.add_version(new(V1))
    assert registry.add_version(new(V1, rank=99, source="elsewhere")) == added


def test_two_versions_of_a_name_may_not_share_their_short_form(registry):
    registry.add_version(new(V1))
    twin = AdapterVersion("risk", "1" * 8 + "9" * 56)
    with pytest.raises(AdapterConflictError, match="risk@11111111"):
        registry.add_version(new(twin))
    assert [record.version for record in registry.list_versions()] == [V1]
    registry.add_version(new(AdapterVersion("legal", twin.digest)))


def test_versions_are_listed_by_name_and_age(registry):
    for version in (V2, OTHER, V1):
        registry.add_version(new(version))
    assert [record.version for record in registry.list_versions()] == [OTHER, V2, V1]
    assert [record.version for record in registry.list_versions("risk")] == [V2, V1]
    assert registry.list_versions("none-such") == []


def test_an_alias_moves_only_from_where_it_was_expected(registry):
    registry.add_version(new(V1))
    registry.add_version(new(V2))
    registry.set_alias(V1, expected_digest=None)
    with pytest.raises(AdapterConflictError, match="expected unset, found 11111111"):
        registry.set_alias(V2, expected_digest=None)
    with pytest.raises(AdapterConflictError, match="expected 33333333, found 11111111"):
        registry.set_alias(V2, expected_digest="3" * 64)
    assert [alias.version for alias in registry.list_aliases()] == [V1]
    moved = registry.set_alias(V2, expected_digest=V1.digest)
    assert registry.list_aliases() == [moved]
    assert moved.version == V2


def test_setting_an_alias_to_where_it_points_succeeds(registry):
    registry.add_version(new(V1))
    first = registry.set_alias(V1, expected_digest=None)
    assert registry.set_alias(V1, expected_digest=None) == first
    assert registry.set_alias(V1, expected_digest="9" * 64) == first


def test_an_expected_alias_that_was_dropped_is_a_conflict(registry):
    registry.add_version(new(V1))
    with pytest.raises(AdapterConflictError, match="found unset"):
        registry.set_alias(V1, expected_digest=V2.digest)
    assert registry.list_aliases() == []


def test_an_alias_needs_a_known_version(registry):
    with pytest.raises(AdapterNotFoundError, match="risk@11111111"):
        registry.set_alias(V1, expected_digest=None)
    registry.add_version(new(OTHER))
    with pytest.raises(AdapterNotFoundError):
        registry.set_alias(V1, expected_digest=None)


def test_a_reference_finds_the_live_or_the_pinned_version(registry):
    registry.add_version(new(V1))
    registry.add_version(new(V2))
    registry.add_version(new(OTHER))
    with pytest.raises(AdapterNotFoundError, match="risk"):
        registry.get(parse_reference("risk"))
    registry.set_alias(V2, expected_digest=None)
    assert registry.get(parse_reference("risk")).version == V2
    assert registry.get(parse_reference("risk@11111111")).version == V1
    assert registry.get(parse_reference(f"risk@{V1.digest}")).version == V1
    for unknown in ("risk@33333333", "risk@" + "1" * 63 + "2", "none-such"):
        with pytest.raises(AdapterNotFoundError):
            registry.get(parse_reference(unknown))


def test_a_live_version_cannot_be_removed(registry):
    registry.add_version(new(V1))
    registry.set_alias(V1, expected_digest=None)
    with pytest.raises(AdapterConflictError, match="risk@11111111"):
        registry.remove_version(V1)
    registry.add_version(new(V2))
    registry.set_alias(V2, expected_digest=V1.digest)
    assert registry.remove_version(V1)
    assert not registry.remove_version(V1)
    assert [record.version for record in registry.list_versions()] == [V2]


def test_events_are_listed_newest_first_in_pages(registry):
    for number in range(5):
        name = "risk" if number % 2 else None
        registry.append_event(
            Event(
                "key:admin",
                "load",
                "ok",
                name=name,
                digest=V1.digest,
                detail={"seconds": 0.5, "number": number},
            )
        )
    newest = registry.list_events(limit=2)
    assert [record.event.detail["number"] for record in newest] == [4, 3]
    older = registry.list_events(before_id=newest[-1].id)
    assert [record.event.detail["number"] for record in older] == [2, 1, 0]
    assert [record.event.detail["number"] for record in registry.list_events(name="risk")] == [3, 1]
    record = newest[0]
    assert record.at.utcoffset() == timedelta(0)
    assert record.event == Event("key:admin", "load", "ok", None, V1.digest, {"seconds": 0.5, "number": 4})


def test_events_are_read_on_from_the_last_one_seen(registry):
    assert registry.last_event_id() == 0
    written = registry.append_events([Event("me", "load", "done", "risk", detail={"n": n}) for n in range(5)])
    assert [record.event.detail["n"] for record in written] == list(range(5))
    assert registry.last_event_id() == written[-1].id
    assert registry.events_after(0, limit=2) == written[:2]
    assert registry.events_after(written[1].id) == written[2:]
    assert registry.events_after(written[-1].id) == []


def test_events_are_found_by_who_what_and_content(registry):
    registry.append_events(
        [
            Event("me", "load", "done", "risk", "a" * 64),
            Event("watcher", "load", "probe_failed", "risk", "b" * 64),
            Event("gateway", "state", "live", "risk", "a" * 64),
        ]
    )

    def found(**wanted: Any) -> list[str]:
        return [record.event.outcome for record in registry.list_events(**wanted)]

    assert found(actor="watcher") == ["probe_failed"]
    assert found(action="state") == ["live"]
    assert found(digest="a" * 64) == ["live", "done"]
    assert found(without_actions=("state",)) == ["probe_failed", "done"]


def test_everything_is_there_after_opening_again(url):
    with Registry(url) as registry:
        registry.add_version(new(V1))
        alias = registry.set_alias(V1, expected_digest=None)
        event = registry.append_event(Event("me", "load", "ok"))
    with Registry(url) as registry:
        assert registry.list_aliases() == [alias]
        assert registry.list_events() == [event]
        assert registry.get(parse_reference("risk")).version == V1


def test_a_closed_registry_says_so(url):
    registry = Registry(url)
    with pytest.raises(RegistryError, match="not open"):
        registry.list_aliases()
    registry.open()
    registry.open()
    registry.close()
    registry.close()
    with pytest.raises(RegistryError, match="not open"):
        registry.list_aliases()


def test_of_many_threads_that_move_an_alias_one_wins(registry):
    versions = [AdapterVersion("risk", f"{number:x}" * 64) for number in range(1, 9)]
    start = AdapterVersion("risk", "f" * 64)
    for version in (start, *versions):
        registry.add_version(new(version))
    registry.set_alias(start, expected_digest=None)
    barrier = threading.Barrier(len(versions))

    def move(version: AdapterVersion) -> bool:
        barrier.wait()
        try:
            registry.set_alias(version, expected_digest=start.digest)
        except AdapterConflictError:
            return False
        return True

    with ThreadPoolExecutor(len(versions)) as pool:
        won = list(pool.map(move, versions))
    assert won.count(True) == 1
    assert registry.get(parse_reference("risk")).version == versions[won.index(True)]


def test_many_threads_add_and_write_without_losing_anything(registry):
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait()
        registry.add_version(new(V1))
        for step in range(10):
            registry.append_event(Event(f"worker-{number}", "load", "ok", detail={"step": step}))
            registry.list_versions()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(registry.list_versions()) == 1
    assert len(registry.list_events(limit=1000)) == 60


def test_gateways_that_start_together_migrate_once(url):
    code = (
        "import sys; from adapters.registry.registry import Registry; "
        "r = Registry(sys.argv[1]); r.open(); r.list_aliases(); r.close()"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]


_HAMMER = """
import sys
from adapters.name import AdapterVersion
from adapters.registry.records import Event, NewVersion
from adapters.registry.registry import Registry

url, me = sys.argv[1:]
for turn in range(4):
    with Registry(url) as registry:
        for step in range(10):
            version = AdapterVersion(me, f"{turn:x}{step:x}" * 32)
            registry.add_version(NewVersion(version, 8, 100, "f" * 64, "here"))
            before = registry.name(me).live
            registry.set_alias(version, expected_digest=before)
            registry.append_event(Event(me, "load", "ok", name=me, digest=version.digest))
            registry.snapshot()
"""


def test_two_processes_that_open_write_and_close_never_stand_in_each_others_way(url):
    running = {
        name: subprocess.Popen([sys.executable, "-c", _HAMMER, url, name]) for name in ("left", "right")
    }
    assert [process.wait(120) for process in running.values()] == [0, 0]
    with Registry(url) as registry:
        for name in running:
            assert len(registry.list_versions(name)) == 40
            assert registry.name(name).live == "39" * 32
            events = registry.list_events(actor=name, limit=1000)
            assert len({event.id for event in events}) == 40
        assert registry.revision() == 2 * 2 * 40
