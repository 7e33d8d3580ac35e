"""One version's counts and steps."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adapters.name import AdapterVersion
from serve.engine.protocol import AdapterHandle
from serve.lifecycle.state import AdapterState, TransitionError
from serve.lifecycle.version import ManagedVersion, VersionFacts


def make(steps: list[tuple[AdapterState, AdapterState]] | None = None) -> ManagedVersion:
    version = AdapterVersion("risk", "3f2a91c0" * 8)
    handle = AdapterHandle(str(version), 1, Path("risk"))
    noted = steps if steps is not None else []
    return ManagedVersion(
        version, handle, VersionFacts(4, 9, "risk"), lambda m, came_from: noted.append((came_from, m.state))
    )


def test_steps_are_told_with_where_they_came_from() -> None:
    steps: list[tuple[AdapterState, AdapterState]] = []
    managed = make(steps)
    managed.advance(AdapterState.CHECKED)
    managed.advance(AdapterState.FAILED, "no")
    assert steps == [
        (AdapterState.REGISTERED, AdapterState.CHECKED),
        (AdapterState.CHECKED, AdapterState.FAILED),
    ]
    assert managed.reason == "no"


def test_a_step_that_does_not_exist_changes_nothing() -> None:
    steps: list[tuple[AdapterState, AdapterState]] = []
    managed = make(steps)
    with pytest.raises(TransitionError):
        managed.advance(AdapterState.LIVE)
    assert managed.state is AdapterState.REGISTERED
    assert steps == []


async def test_idle_comes_when_the_last_user_has_gone() -> None:
    managed = make()
    await managed.wait_idle()
    with managed.use():
        with managed.use():
            assert managed.in_flight == 2
        idle = asyncio.create_task(managed.wait_idle())
        await asyncio.sleep(0)
        assert not idle.done()
    await idle
    assert managed.in_flight == 0
    assert managed.last_used is not None


def test_a_failing_user_is_counted_out() -> None:
    managed = make()
    with pytest.raises(LookupError), managed.use():
        raise LookupError
    assert managed.in_flight == 0


def test_the_seconds_of_a_phase_are_kept_also_when_it_fails() -> None:
    managed = make()
    with pytest.raises(LookupError), managed.timed("load"):
        raise LookupError
    assert managed.phase_seconds["load"] >= 0
