"""Waiting for servers that still compute for nobody."""

from __future__ import annotations

from typing import Any

from benchmarks.load.peers.rest import LOOK_SECONDS, wait_until_at_rest


class Computing:
    """A server that uses so much of a core while the clock is below `until`."""

    def __init__(self, clock: Clock, until: float = 0.0) -> None:
        self._clock, self._until = clock, until

    def cpu_seconds(self) -> tuple[float, float] | None:
        return 0.0, min(self._clock.now, self._until)


class Elsewhere:
    """One that was not started here."""

    def cpu_seconds(self) -> None:
        return None


class Clock:
    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait(clock: Clock, servers: dict[str, Any], most_seconds: float = 60.0) -> tuple[bool, list[str]]:
    said: list[str] = []
    return wait_until_at_rest(servers, most_seconds, said.append, sleep=clock.sleep), said


def test_a_turn_begins_once_the_server_that_cannot_cancel_has_ended() -> None:
    clock = Clock()
    at_rest, said = wait(clock, {"gateway": Computing(clock), "tutorial": Computing(clock, until=8.0)})
    assert at_rest
    assert 8.0 <= clock.now <= 8.0 + 2 * LOOK_SECONDS
    assert said == ["waiting for tutorial to end what nobody waits for"]


def test_one_that_never_ends_is_named_and_not_waited_for_any_longer() -> None:
    clock = Clock()
    at_rest, said = wait(clock, {"tutorial": Computing(clock, until=1e9)}, most_seconds=5.0)
    assert not at_rest
    assert clock.now <= 5.0 + LOOK_SECONDS
    assert "tutorial still computes after 5 s" in said[-1]


def test_servers_that_were_not_started_here_cost_no_time() -> None:
    clock = Clock()
    assert wait(clock, {"theirs": Elsewhere()}) == (True, [])
    assert clock.now == 0.0
