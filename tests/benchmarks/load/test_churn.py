"""Adapters that change while a load runs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.churn import KINDS, Change, Changes, parse_churn, plan_churn, plan_swaps
from benchmarks.load.errors import LoadOptionError
from benchmarks.load.own_gateway import OwnGateway, own_gateway
from serve.client import GatewayClient


def test_rates_are_per_minute_and_zero_where_none_is_named() -> None:
    assert parse_churn("load:2, unload:0.5") == {"load": 2.0, "replace": 0.0, "unload": 0.5}


@pytest.mark.parametrize(
    "text", ["", "load", "load:x", "load:-1", "promote:1", "load:1,load:2", "load:0", "load:nan"]
)
def test_churn_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(LoadOptionError, match="--churn"):
        parse_churn(text)


@given(
    rates=st.tuples(*(st.floats(0, 200) for _ in KINDS)).filter(lambda rates: sum(rates) > 0),
    names=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_plan_can_be_carried_out_and_is_the_same_for_the_same_seed(
    rates: tuple[float, ...], names: int, seed: int
) -> None:
    before = {f"name-{number}": "one" for number in range(names)}

    def plan() -> tuple[Change, ...]:
        rated = dict(zip(KINDS, rates, strict=True))
        return plan_churn(rated, before, ["one", "two", "three"], seconds=60, seed=seed, new_name="new-")

    made = plan()
    assert made == plan()
    assert [change.at_seconds for change in made] == sorted(change.at_seconds for change in made)
    live = dict(before)
    for change in made:
        match change.kind:
            case "load":
                assert change.name not in live
            case "replace":
                assert live[change.name] != change.source
            case "unload":
                assert change.source is None
                del live[change.name]
        if change.source is not None:
            live[change.name] = change.source


def test_verbs_come_as_often_as_asked_for() -> None:
    rates = parse_churn("load:20,replace:30,unload:10")
    made = plan_churn(rates, {"a": "one"}, ["one", "two"], seconds=6000, seed=1, new_name="new-")
    for kind, rate in rates.items():
        count = sum(change.kind == kind for change in made)
        assert abs(count - 100 * rate) < 5 * math.sqrt(100 * rate)


def test_swaps_go_round_the_sources() -> None:
    made = plan_swaps("a", ["one", "two"], every_seconds=0.5, seconds=1.2)
    assert [(change.at_seconds, change.source) for change in made] == [
        (0.0, "one"),
        (0.5, "two"),
        (1.0, "one"),
    ]


@pytest.fixture(scope="module")
def gateway() -> Iterator[OwnGateway]:
    with own_gateway("scripted", adapters=2) as up:
        yield up


def live(client: GatewayClient) -> dict[str, str]:
    return {one["name"]: one["live"] for one in client.list_adapters()["adapters"] if one["live"]}


def test_the_plan_is_carried_out_timed_and_undone(gateway: OwnGateway) -> None:
    source = gateway.maker.make("another", seed=77)
    plan = (
        Change(0.0, "replace", "adapter-0", source),
        Change(0.0, "unload", "adapter-1", None),
        Change(0.0, "load", "new-0", source),
        Change(3600.0, "replace", "adapter-0", source),
    )
    changes = Changes(gateway.url, plan, {name: name for name in gateway.adapters})
    with GatewayClient(gateway.url) as client:
        before = live(client)
        with changes.running(time.monotonic()) as verbs:
            while len(verbs) < 3:
                time.sleep(0.01)
            during = live(client)
        assert live(client) == before
    assert sorted(during) == ["adapter-0", "new-0"]
    assert during["adapter-0"] != before["adapter-0"]
    assert [(verb.kind, verb.name, verb.error) for verb in verbs] == [
        ("replace", "adapter-0", None),
        ("unload", "adapter-1", None),
        ("load", "new-0", None),
    ]
    assert verbs[0].version == during["adapter-0"]
    assert {"check", "load", "probe", "total"} <= set(verbs[0].phase_seconds)
    assert verbs[0].seconds >= verbs[0].phase_seconds["probe"]


def test_a_verb_that_fails_is_kept_with_its_reason(gateway: OwnGateway) -> None:
    plan = (Change(0.0, "replace", "adapter-0", "nowhere"), Change(0.0, "replace", "adapter-0", "adapter-0"))
    changes = Changes(gateway.url, plan, {"adapter-0": "adapter-0"})
    with changes.running(time.monotonic()) as verbs:
        while len(verbs) < 2:
            time.sleep(0.01)
    assert "nowhere" in str(verbs[0].error)
    assert "live already" in str(verbs[1].error)
