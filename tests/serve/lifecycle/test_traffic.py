"""Shares of traffic: who gets which version, and what may be written into a plan."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serve.lifecycle.traffic import (
    Choice,
    Guard,
    Rollout,
    TrafficPlan,
    choose,
    choose_shadow,
    place,
    request_key,
)

STABLE, CANARY, OTHER = "a" * 64, "b" * 64, "c" * 64
KEYS = [f"caller-{number}" for number in range(4000)]

digests = st.integers(min_value=0, max_value=2**256 - 1).map(lambda number: f"{number:064x}")


@st.composite
def plans(draw: st.DrawFn) -> TrafficPlan:
    names = draw(st.lists(digests, max_size=8, unique=True))
    parts = draw(st.lists(st.integers(1, 100), min_size=len(names), max_size=len(names)))
    whole = sum(parts) + draw(st.integers(0, 100))
    return TrafficPlan(shares={name: part / whole for name, part in zip(names, parts, strict=True)})


def within(count: int, of: int, share: float) -> bool:
    """Five standard deviations: once in two million."""
    return abs(count - of * share) <= 5 * math.sqrt(of * share * (1 - share)) + 1e-9


@settings(max_examples=25, deadline=None)
@given(plans(), digests)
def test_each_version_gets_its_share_of_the_keys(plan: TrafficPlan, stable: str) -> None:
    counts = Counter(choose(plan, stable, key) for key in KEYS)
    for version, share in plan.shares.items():
        if version != stable:
            assert within(counts[version], len(KEYS), share)
    assert set(counts) <= {*plan.shares, stable}


@settings(max_examples=200)
@given(plans(), digests, st.text(), st.sets(digests))
def test_a_version_that_is_not_there_is_answered_for_by_the_stable_one(
    plan: TrafficPlan, stable: str, key: str, others: set[str]
) -> None:
    available = {*others, stable}
    assert choose(plan, stable, key, available=available) in available
    assert choose(plan, stable, key) in {stable, *plan.shares}
    assert choose(plan, stable, key) == choose(plan, stable, key)


@settings(max_examples=50)
@given(st.floats(0.01, 0.98), st.floats(0.0, 1.0), st.floats(0.0, 0.5))
def test_a_canary_that_grows_keeps_its_keys_and_takes_no_more_than_it_grew(
    share: float, growth: float, other: float
) -> None:
    room = 1 - share
    rest = {OTHER: other * room * 0.5} if other > 0.01 else {}
    small = TrafficPlan(shares={CANARY: share, **rest})
    large = TrafficPlan(shares={CANARY: share + growth * room * 0.5, **rest})
    keys = KEYS[:400]
    before, after = ([choose(plan, STABLE, key) for key in keys] for plan in (small, large))
    assert all(now == CANARY for was, now in zip(before, after, strict=True) if was == CANARY)
    if not rest:
        moved = sum(was != now for was, now in zip(before, after, strict=True))
        assert moved == after.count(CANARY) - before.count(CANARY)


def test_a_whole_share_leaves_nothing_to_the_stable_version() -> None:
    plan = TrafficPlan(shares={CANARY: 0.7, OTHER: 0.3})
    assert {choose(plan, STABLE, key) for key in KEYS} == {CANARY, OTHER}


def test_a_plan_without_canaries_means_the_stable_version() -> None:
    assert {choose(TrafficPlan(), STABLE, key) for key in KEYS[:50]} == {STABLE}


def test_a_canary_that_became_stable_gets_everything() -> None:
    assert choose(TrafficPlan(shares={CANARY: 0.5}), CANARY, "any") == CANARY


def test_two_canaries_of_the_same_share_mostly_draw_different_callers() -> None:
    first, second = (TrafficPlan(shares={version: 0.1}) for version in (CANARY, OTHER))
    one = {key for key in KEYS if choose(first, STABLE, key) == CANARY}
    two = {key for key in KEYS if choose(second, STABLE, key) == OTHER}
    assert len(one & two) < 0.3 * len(one)


def test_a_shadow_gets_its_share_and_never_answers() -> None:
    plan = TrafficPlan(shares={CANARY: 0.5}, shadow={OTHER: 0.25})
    counts = Counter(choose_shadow(plan, STABLE, key) for key in KEYS)
    assert within(counts[OTHER], len(KEYS), 0.25)
    assert set(counts) == {OTHER, None}
    assert choose_shadow(plan, OTHER, next(k for k in KEYS if choose_shadow(plan, STABLE, k))) is None
    assert all(choose_shadow(plan, STABLE, key, available={STABLE}) is None for key in KEYS[:50])


def test_a_session_or_a_key_sticks_and_anything_else_is_drawn_anew() -> None:
    plan = TrafficPlan(shares={CANARY: 0.5}, sticky="session")
    assert {place(plan, STABLE, session="s", caller=str(n)).version for n in range(50)} == {
        place(plan, STABLE, session="s").version
    }
    assert {place(plan, STABLE, caller="k").version for _ in range(60)} == {STABLE, CANARY}
    by_key = TrafficPlan(shares={CANARY: 0.5}, sticky="key")
    assert len({place(by_key, STABLE, caller="k", session=str(n)).version for n in range(50)}) == 1
    unbound = TrafficPlan(shares={CANARY: 0.5})
    assert {place(unbound, STABLE, caller="k", session="s").version for _ in range(60)} == {STABLE, CANARY}


def test_a_session_cannot_be_mistaken_for_a_key() -> None:
    by_session, by_key = (TrafficPlan(sticky=sticky) for sticky in ("session", "key"))
    assert request_key(by_session, session="x", caller="y") != request_key(by_key, session="y", caller="x")


def test_a_request_is_copied_whoever_answers_it() -> None:
    plan = TrafficPlan(shadow={OTHER: 1.0}, sticky="session")
    assert place(plan, STABLE, session="s") == Choice(STABLE, OTHER)


def test_a_rollout_knows_its_next_step_from_the_share_alone() -> None:
    rollout = Rollout(steps=[0.01, 0.1, 0.5])
    assert [rollout.after(share) for share in (0.001, 0.01, 0.05, 0.1, 0.5, 0.9)] == [
        0.01, 0.1, 0.1, 0.5, None, None
    ]  # fmt: skip


@settings(max_examples=50)
@given(plans())
def test_a_plan_survives_the_registry(plan: TrafficPlan) -> None:
    assert TrafficPlan.from_json(plan.to_json()) == plan
    guarded = plan.model_copy(update={"guard": Guard(max_error_rate=None), "sticky": "key"})
    assert TrafficPlan.from_json(guarded.to_json()) == guarded


@pytest.mark.parametrize(
    "text",
    [
        '{"shares": {"bbbbbbbb": 0.7, "cccccccc": 0.4}}',
        '{"shares": {"bbbbbbbb": 0}}',
        '{"shares": {"bbbbbbbb": 1.01}}',
        '{"shares": {"bbbbbbbb": NaN}}',
        '{"shares": {"bbbbbbbb": true}}',
        '{"shares": {"bbbbbbbb": "0.1"}}',
        '{"shares": {"latest": 0.1}}',
        '{"shares": {"BBBBBBBB": 0.1}}',
        '{"shadow": {"bbbbbbbb": 0.6, "cccccccc": 0.6}}',
        '{"shares": {"bbbbbbbb": 0.1}, "shadow": {"bbbbbbbbcc": 0.1}}',
        '{"shares": {"bbbbbbbb": 0.1, "bbbbbbbb0": 0.1}}',
        '{"sticky": "cookie"}',
        '{"shares": {"bbbbbbbb": 0.1}, "rollout": {"steps": [0.5]}}',
        '{"shares": {"bbbbbbbb": 0.1}, "guard": {}, "rollout": {"steps": []}}',
        '{"shares": {"bbbbbbbb": 0.1}, "guard": {}, "rollout": {"steps": [0.5, 0.5]}}',
        '{"shares": {"bbbbbbbb": 0.1, "cccccccc": 0.1}, "guard": {}, "rollout": {"steps": [0.5]}}',
        '{"weights": {}}',
        '{"guard": {"max_error_rate": 1}}',
        '{"guard": {"min_requests": 0}}',
        '{"guard": {"max_ttft_ratio": 1}}',
        '{"guard": {"window_seconds": 0}}',
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TrafficPlan.from_json(text)
