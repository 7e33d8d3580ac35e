"""Calls that no verb writes down are in the log, those of strangers within a bound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.registry.registry import Registry
from serve.observability.audit import UNKNOWN, Audit, StrangerGate
from serve.observability.events import EventLog
from tests.serve.conftest import migrated_registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    path = tmp_path / "registry.db"
    path.write_bytes(migrated_registry())
    with Registry(f"sqlite:///{path}") as opened:
        yield opened


async def test_strangers_cannot_fill_the_audit_log(registry: Registry) -> None:
    log = EventLog(registry)
    audit = Audit(log, strangers_per_minute=3)
    for number in range(10):
        request_id = f"req-{number}"
        audit.call("GET /admin", actor=None, status=401, outcome="invalid_api_key", request_id=request_id)
    audit.call("GET /admin", actor="admin", status=404, outcome="adapter_not_found", request_id="req")
    await log.close()
    assert [record.event.actor for record in registry.list_events()] == ["admin", UNKNOWN, UNKNOWN, UNKNOWN]


async def test_a_stranger_is_written_down_with_an_address_and_somebody_known_without(
    registry: Registry,
) -> None:
    log = EventLog(registry)
    audit = Audit(log)
    for actor in (None, "key:1"):
        audit.call(
            "DELETE /admin/adapters/{name}",
            actor=actor,
            status=403,
            outcome="insufficient_scope",
            request_id="req-1",
            name="risk",
            address="192.0.2.1",
        )
    await log.close()
    known, stranger = (record.event for record in registry.list_events())
    assert (known.actor, known.detail) == ("key:1", {"status": 403, "request_id": "req-1"})
    assert stranger.detail == {"status": 403, "request_id": "req-1", "address": "192.0.2.1"}
    assert (stranger.action, stranger.outcome, stranger.name) == (
        "DELETE /admin/adapters/{name}",
        "insufficient_scope",
        "risk",
    )


def test_calls_that_were_passed_over_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("serve.observability.audit.time.monotonic", lambda: now)
    gate = StrangerGate(per_minute=2)
    assert [gate.admit() for _ in range(5)] == [0, 0, None, None, None]
    now += 30.0
    assert [gate.admit() for _ in range(2)] == [3, None]
