"""Every step of a life, and every step that there is not."""

from __future__ import annotations

import itertools

import pytest

from serve.lifecycle.state import AdapterState, TransitionError, check_step, next_states

S = AdapterState
# Written out a second time on purpose: a step that is added must be added here too.
STEPS = {
    (S.REGISTERED, S.CHECKED),
    (S.CHECKED, S.LOADING),
    (S.LOADING, S.PROBING),
    (S.LOADING, S.LIVE),
    (S.PROBING, S.LIVE),
    (S.PROBING, S.LOADING),
    (S.LIVE, S.LOADING),
    (S.LIVE, S.DRAINING),
    (S.DRAINING, S.UNLOADED),
    (S.DRAINING, S.LIVE),
    (S.FAILED, S.REGISTERED),
    (S.FAILED, S.UNLOADED),
    (S.UNLOADED, S.REGISTERED),
    *((state, S.FAILED) for state in (S.REGISTERED, S.CHECKED, S.LOADING, S.PROBING, S.LIVE, S.DRAINING)),
}


@pytest.mark.parametrize(("current", "to"), list(itertools.product(S, S)))
def test_a_life_has_these_steps_and_no_others(current: AdapterState, to: AdapterState) -> None:
    assert (to in next_states(current)) == ((current, to) in STEPS)
    if (current, to) in STEPS:
        check_step("risk@3f2a91c0", current, to)
    else:
        with pytest.raises(TransitionError, match=f"risk@3f2a91c0 cannot go from {current} to {to}"):
            check_step("risk@3f2a91c0", current, to)


def test_every_state_can_be_reached_from_the_first() -> None:
    reached = {S.REGISTERED}
    while more := {to for state in reached for to in next_states(state)} - reached:
        reached |= more
    assert reached == set(S)
