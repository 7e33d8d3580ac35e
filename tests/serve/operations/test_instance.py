"""A gateway's name: nobody else's while it lives, and free again however it ended."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.registry.operations import OperationRecord, OperationTable
from adapters.registry.registry import Registry
from serve.operations.instance import FOLDER, instance_name, take_instance
from serve.operations.operation import OperationState, new_operation_id
from tests.serve.conftest import ServerProcess


def running() -> OperationRecord:
    """An operation that has just begun."""
    return OperationRecord(
        id=new_operation_id(),
        action="load",
        name="risk",
        actor="me",
        request_id="req-1",
        key=None,
        fingerprint=None,
        state=OperationState.RUNNING,
        phases=(),
        status=None,
        answer=None,
        started_at=datetime.now(UTC),
        ended_at=None,
    )


def test_each_of_those_that_live_has_another_name_and_the_lowest_free_place_is_taken(tmp_path: Path) -> None:
    first, second = take_instance(tmp_path), take_instance(tmp_path)
    assert first.name == instance_name(tmp_path) != second.name
    third = take_instance(tmp_path)
    assert len({first.name, second.name, third.name}) == 3
    second.leave()
    second.leave()
    again = take_instance(tmp_path)
    assert again.name == second.name
    for one in (first, third, again):
        one.leave()


def test_a_name_tells_neither_the_home_nor_is_it_that_of_another(tmp_path: Path) -> None:
    assert str(tmp_path) not in instance_name(tmp_path)
    assert instance_name(tmp_path) != instance_name(tmp_path / "other")


def test_where_no_place_can_be_taken_the_name_is_of_one_life(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    assert take_instance(tmp_path).name != take_instance(tmp_path).name
    assert "no place can be taken" in caplog.text


def test_a_gateway_that_starts_in_a_home_ends_what_a_dead_one_ran_there_and_not_what_a_living_one_runs(
    server_process: Callable[..., ServerProcess],
) -> None:
    first = server_process()
    with Registry(f"sqlite:///{first.home / 'registry.db'}") as registry:
        table = OperationTable(registry, instance=instance_name(first.home))  # in the first one's name
        record = running()
        table.begin(record)

        def state() -> str:
            found = table.get(record.id)
            assert found is not None
            return found.state

        second = server_process()
        assert state() == OperationState.RUNNING
        assert "this is gateway 2 of those that serve from" in second.log.read_text()
        first.signal(signal.SIGKILL)
        first.wait()
        server_process()
        assert state() == OperationState.FAILED
