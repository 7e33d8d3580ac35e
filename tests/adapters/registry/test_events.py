"""Events in the registry: what is old and of one action goes, everything else stays."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.registry import events
from adapters.registry.records import Event
from adapters.registry.registry import Registry


def written(registry: Registry) -> list[tuple[int, str]]:
    """(id, action), oldest first."""
    return [(record.id, record.event.action) for record in registry.events_after(0, limit=1000)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["state", "load", "unload"]), max_size=20), st.integers(0, 25))
def test_steps_among_the_newest_stay_and_so_does_every_other_event(
    registry: Registry, actions: list[str], keep: int
) -> None:
    if actions:
        registry.append_events([Event("me", action, "done") for action in actions])
    before = written(registry)
    last = registry.last_event_id()
    stays = [(event_id, action) for event_id, action in before if action != "state" or event_id > last - keep]
    assert registry.prune_events(action="state", keep=keep) == len(before) - len(stays)
    assert written(registry) == stays
    assert registry.prune_events(action="state", keep=keep) == 0


def test_of_many_the_oldest_go_first_and_the_rest_the_next_time(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_PRUNED_AT_ONCE", 3)
    written = registry.append_events([Event("me", "state", "live") for _ in range(10)])
    assert registry.prune_events(action="state", keep=5) == 3
    assert registry.events_after(0)[0].id == written[3].id
    assert registry.prune_events(action="state", keep=5) == 2
    assert registry.prune_events(action="state", keep=5) == 0


def test_numbers_go_on_where_they_were(registry: Registry) -> None:
    last = registry.append_events([Event("me", "state", "live") for _ in range(3)])[-1].id
    registry.prune_events(action="state", keep=1)
    assert registry.append_event(Event("me", "load", "done")).id == last + 1
