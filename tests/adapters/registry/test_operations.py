"""Operations in the registry: one for each key, ended once, forgotten in time."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.registry.operations import OperationRecord, OperationTable, PhaseSeconds

ABORTED: dict[str, Any] = {"error": {"code": "aborted"}}


def running(number: int, *, key: str | None = None, **changes: Any) -> OperationRecord:
    record = OperationRecord(
        id=f"op-{number:024d}",
        action="load",
        name="risk",
        actor="me",
        request_id="req-1",
        key=key,
        fingerprint="f" * 64,
        state="running",
        phases=(),
        status=None,
        answer=None,
        started_at=datetime.now(UTC) + timedelta(milliseconds=number),
        ended_at=None,
    )
    return dataclasses.replace(record, **changes)


def ended(record: OperationRecord, *, seconds_ago: float = 0.0, status: int = 201) -> OperationRecord:
    return dataclasses.replace(
        record,
        state="done",
        status=status,
        answer={"created": True},
        phases=(PhaseSeconds("check", 0.5),),
        ended_at=datetime.now(UTC) - timedelta(seconds=seconds_ago),
    )


@pytest.fixture
def table(registry: Any) -> OperationTable:
    return OperationTable(registry, instance="here")


def test_an_operation_comes_back_as_it_ended(table: OperationTable) -> None:
    begun = running(1, key="k")
    assert table.begin(begun) == begun
    assert table.get(begun.id) == begun
    table.end(ended(begun), keep_key=True)
    found = table.get(begun.id)
    assert found is not None
    assert (found.state, found.status, found.answer) == ("done", 201, {"created": True})
    assert found.phases == (PhaseSeconds("check", 0.5),)
    assert table.get("op-none") is None


def test_a_key_has_one_operation_of_each_actor(table: OperationTable) -> None:
    first = running(1, key="k")
    table.begin(first)
    assert table.begin(running(2, key="k")) == first
    other = running(3, key="k", actor="somebody else")
    assert table.begin(other) == other
    without = [running(number) for number in (4, 5)]
    assert [table.begin(record) for record in without] == without
    assert [record.id for record in table.list()] == [r.id for r in (without[1], without[0], other, first)]
    assert [record.id for record in table.list(limit=1)] == [without[1].id]
    assert table.list(name="tone") == []


def test_a_key_that_is_not_kept_may_be_used_again(table: OperationTable) -> None:
    first, second = running(1, key="k"), running(2, key="k")
    table.begin(first)
    table.end(ended(first, status=503), keep_key=False)
    assert table.begin(second) == second


def test_what_a_process_left_running_is_ended_by_its_successor(registry: Any, table: OperationTable) -> None:
    mine, theirs, done = running(1, key="a"), running(2, key="b"), running(3, key="c")
    table.begin(mine)
    OperationTable(registry, instance="there").begin(theirs)
    table.begin(done)
    table.end(ended(done), keep_key=True)
    assert table.interrupt(ABORTED, status=503, own=True, untouched_seconds=600) == 1
    assert [record.state for record in table.list()] == ["done", "running", "failed"]
    found = table.get(mine.id)
    assert found is not None
    assert (found.status, found.answer, found.key) == (503, ABORTED, None)
    table.touch([theirs.id])
    assert table.interrupt(ABORTED, status=503, own=False, untouched_seconds=600) == 0
    assert table.interrupt(ABORTED, status=503, own=False, untouched_seconds=-1) == 1


def test_old_operations_are_forgotten_and_running_ones_never(table: OperationTable) -> None:
    records = [running(number) for number in range(5)]
    for record in records:
        table.begin(record)
    table.end(ended(records[1], seconds_ago=100), keep_key=True)
    for record in records[2:]:
        table.end(ended(record), keep_key=True)
    assert table.prune(older_than_seconds=60, keep=100) == 1
    assert table.prune(older_than_seconds=60, keep=2) == 1
    assert [record.id for record in table.list()] == [records[n].id for n in (4, 3, 0)]
