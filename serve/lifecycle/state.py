"""The life of an adapter version: every state, every step between states, in one place.

registered -> checked -> loading -> probing -> live -> draining -> unloaded
     |           |          |          |        |         |
     +-----------+----------+----------+--------+---------+--> failed (with a reason)

`unloaded` and `failed` may be `registered` again: the same content has the same name for ever. When the engine was
started again, `live` goes back to `loading`, and so does a probe that the engine's death cut off.
"""

from __future__ import annotations

from enum import StrEnum

from serve.errors import LifecycleError


class AdapterState(StrEnum):
    """Where one adapter version is."""

    REGISTERED = "registered"
    CHECKED = "checked"
    LOADING = "loading"
    PROBING = "probing"
    LIVE = "live"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    FAILED = "failed"


_STEPS: dict[AdapterState, frozenset[AdapterState]] = {
    AdapterState.REGISTERED: frozenset({AdapterState.CHECKED, AdapterState.FAILED}),
    AdapterState.CHECKED: frozenset({AdapterState.LOADING, AdapterState.FAILED}),
    AdapterState.LOADING: frozenset({AdapterState.PROBING, AdapterState.LIVE, AdapterState.FAILED}),
    AdapterState.PROBING: frozenset({AdapterState.LIVE, AdapterState.LOADING, AdapterState.FAILED}),
    AdapterState.LIVE: frozenset({AdapterState.DRAINING, AdapterState.LOADING, AdapterState.FAILED}),
    # A version that is wanted again before it has drained goes straight back.
    AdapterState.DRAINING: frozenset({AdapterState.UNLOADED, AdapterState.LIVE, AdapterState.FAILED}),
    AdapterState.UNLOADED: frozenset({AdapterState.REGISTERED}),
    AdapterState.FAILED: frozenset({AdapterState.REGISTERED, AdapterState.UNLOADED}),
}


class TransitionError(LifecycleError):
    """A step that the life of an adapter does not have: a bug in the caller, never a user's mistake."""

    code = "illegal_transition"


def check_step(version: str, current: AdapterState, to: AdapterState) -> None:
    """Raise TransitionError unless `current -> to` exists."""
    if to not in _STEPS[current]:
        raise TransitionError(f"adapter {version} cannot go from {current} to {to}")


def next_states(current: AdapterState) -> frozenset[AdapterState]:
    """The states one step away."""
    return _STEPS[current]
