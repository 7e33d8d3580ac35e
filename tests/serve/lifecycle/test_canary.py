"""Canaries that are taken back, and those that are not."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.name import AdapterVersion
from bases.errors import HotswapError
from serve.engine.protocol import AdapterHandle
from serve.errors import (
    ContextLengthError,
    DeadlineExceededError,
    EngineDeadError,
    GenerationFailedError,
    LifecycleError,
    ProbeFailedError,
    QueueTimeoutError,
)
from serve.http.exchange import Record
from serve.lifecycle.canary import ACTOR, CanaryJudge
from serve.lifecycle.finding import version_failed
from serve.lifecycle.state import AdapterState
from serve.lifecycle.traffic import Guard, Rollout, TrafficPlan
from serve.lifecycle.version import ManagedVersion, VersionFacts
from serve.observability.metrics import GatewayMetrics
from serve.running import ClientGoneError

STABLE, CANARY, OTHER = "a" * 64, "b" * 64, "c" * 64
LIVE = (AdapterState.CHECKED, AdapterState.LOADING, AdapterState.LIVE)


def managed_of(digest: str) -> ManagedVersion:
    version = AdapterVersion("risk", digest)
    managed = ManagedVersion(
        version,
        AdapterHandle(str(version), 1, Path("risk")),
        VersionFacts(4, 9, "risk"),
        on_step=lambda *_: None,
    )
    for step in LIVE:
        managed.advance(step)
    return managed


class Stage:
    """A board, its verbs and the clock, played by the test."""

    def __init__(self, plan: TrafficPlan) -> None:
        self.now = 0.0
        self.known = {digest: managed_of(digest) for digest in (STABLE, CANARY, OTHER)}
        self.stable = STABLE
        self.plan: TrafficPlan | None = plan
        self.done: list[tuple[str, str, str | None]] = []
        self.refuses: HotswapError | None = None
        self.probe_error: HotswapError | None = None
        self.probes: list[str] = []
        self.metrics = GatewayMetrics()
        self.judge = CanaryJudge(self, self, self.metrics, clock=lambda: self.now)

    def aliases(self) -> Mapping[str, ManagedVersion]:
        return {"risk": self.known[self.stable]}

    def behind(self, alias: str) -> ManagedVersion | None:
        return self.aliases().get(alias)

    def traffic(self, alias: str) -> TrafficPlan | None:
        return self.plan if alias == "risk" else None

    def get(self, version: AdapterVersion) -> ManagedVersion | None:
        return self.known.get(version.digest)

    async def set_traffic(
        self, name: str, plan: TrafficPlan, *, actor: str, reason: str | None = None
    ) -> TrafficPlan:
        self._do("set_traffic", actor, reason)
        self.plan = plan
        return plan

    async def clear_traffic(self, name: str, *, actor: str, reason: str | None = None) -> TrafficPlan | None:
        self._do("clear_traffic", actor, reason)
        plan, self.plan = self.plan, None
        return plan

    async def promote(self, name: str, version: str, *, actor: str) -> object:
        self._do("promote", actor, version)
        self.stable, self.plan = version, None
        return None

    async def probe_again(self, managed: ManagedVersion) -> object:
        self.probes.append(managed.version.digest)
        if self.probe_error is not None:
            raise self.probe_error
        return None

    def _do(self, verb: str, actor: str, reason: str | None) -> None:
        assert actor == ACTOR
        self.done.append((verb, actor, reason))
        if self.refuses is not None:
            raise self.refuses

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _, _ in self.done]

    def decisions(self) -> dict[str, float]:
        family = next(f for f in self.metrics.registry.collect() if f.name == "hotswap_canary_decisions")
        return {s.labels["outcome"]: s.value for s in family.samples if s.name.endswith("_total")}

    def answer(
        self, digest: str, count: int = 1, *, error: Exception | None = None, ttft: float | None = 0.1
    ) -> None:
        for _ in range(count):
            record = Record("/generate")
            record.adapter, record.adapter_resolved = "risk", True
            record.version = str(AdapterVersion("risk", digest))
            record.error, record.completed, record.ttft_seconds = error, error is None, ttft
            self.judge.observe(record)


def plan_of(guard: Guard | None = None, **more: object) -> TrafficPlan:
    values = {"shares": {CANARY: 0.1}, "guard": guard or Guard(), **more}
    return TrafficPlan.model_validate(values)


FAILED = GenerationFailedError("no")


async def test_a_canary_that_fails_is_taken_back_with_its_numbers() -> None:
    stage = Stage(plan_of(Guard(min_requests=20)))
    stage.answer(STABLE, 180)
    stage.answer(CANARY, 17)
    stage.answer(CANARY, 3, error=FAILED)
    await stage.judge.settled()
    assert stage.done == []
    stage.answer(CANARY, 2, error=FAILED)
    await stage.judge.settled()
    ((verb, actor, reason),) = stage.done
    assert (verb, actor) == ("clear_traffic", "canary")
    assert reason is not None
    assert re.match("risk@bbbbbbbb: [45] of 2[12] answers failed", reason)
    assert "stable version's 180 failed 0" in reason
    assert stage.decisions() == {"error_rate": 1}


async def test_a_canary_is_not_judged_before_its_requests() -> None:
    stage = Stage(plan_of(Guard(min_requests=30)))
    stage.answer(STABLE, 100)
    stage.answer(CANARY, 29, error=FAILED)
    await stage.judge.settled()
    assert stage.done == []
    stage.answer(CANARY, error=FAILED)
    await stage.judge.settled()
    assert stage.verbs == ["clear_traffic"]


async def test_what_clients_and_the_engine_do_is_not_held_against_a_canary() -> None:
    stage = Stage(plan_of(Guard(min_requests=1)))
    errors = [ClientGoneError("x"), ContextLengthError("x"), EngineDeadError("x"), QueueTimeoutError("x")]
    stage.answer(STABLE, 100)
    for error in errors:
        stage.answer(CANARY, 50, error=error)
    await stage.judge.settled()
    assert stage.done == []
    assert [standing.answers for standing in stage.judge.standings("risk")] == [100, 0]


@pytest.mark.parametrize(
    "error", [GenerationFailedError("x"), DeadlineExceededError("x"), RuntimeError("bug")]
)
def test_failures_of_the_version_are_counted(error: Exception) -> None:
    record = Record("/generate")
    record.error = error
    assert version_failed(record) is True


def test_an_exchange_that_was_cancelled_says_nothing() -> None:
    assert version_failed(Record("/generate")) is None


async def test_a_slow_canary_is_taken_back() -> None:
    drawn = random.Random(1)
    stage = Stage(plan_of(Guard(max_ttft_ratio=2.0)))
    for _ in range(100):
        stage.answer(STABLE, ttft=drawn.expovariate(10))
    for _ in range(100):
        stage.answer(CANARY, ttft=6 * drawn.expovariate(10))
    await stage.judge.settled()
    assert stage.verbs == ["clear_traffic"]
    assert "times as long as the stable version's" in (stage.done[0][2] or "")
    assert stage.decisions() == {"ttft": 1}


async def test_a_like_canary_stays() -> None:
    drawn = random.Random(2)
    stage = Stage(plan_of())
    for _ in range(2000):
        stage.answer(STABLE, ttft=drawn.expovariate(10), error=FAILED if drawn.random() < 0.02 else None)
        stage.answer(CANARY, ttft=drawn.expovariate(10), error=FAILED if drawn.random() < 0.02 else None)
    await stage.judge.settled()
    assert stage.done == []
    stable, canary = stage.judge.standings("risk")
    assert (stable.canary, canary.canary, canary.answers) == (False, True, 2000)
    assert canary.ttft_ratio == pytest.approx(1, rel=0.3)


async def test_of_two_canaries_only_the_bad_one_goes() -> None:
    stage = Stage(plan_of(shares={CANARY: 0.1, OTHER: 0.2}))
    stage.answer(STABLE, 100)
    stage.answer(OTHER, 100)
    stage.answer(CANARY, 20, error=FAILED)
    await stage.judge.settled()
    assert stage.verbs == ["set_traffic"]
    assert stage.plan is not None
    assert stage.plan.shares == {OTHER: 0.2}
    stage.answer(OTHER, 100)
    assert {s.version: s.answers for s in stage.judge.standings("risk")}["risk@cccccccc"] == 200


async def test_a_shadow_outlives_the_canary() -> None:
    stage = Stage(plan_of(shadow={OTHER: 0.5}))
    stage.answer(STABLE, 100)
    stage.answer(CANARY, 20, error=FAILED)
    await stage.judge.settled()
    assert stage.plan is not None
    assert (stage.plan.shares, stage.plan.shadow) == ({}, {OTHER: 0.5})


async def test_what_could_not_be_taken_back_is_tried_again() -> None:
    stage = Stage(plan_of())
    stage.refuses = LifecycleError("the registry is away")
    stage.answer(STABLE, 100)
    stage.answer(CANARY, 40, error=FAILED)
    await stage.judge.settled()
    assert stage.verbs == ["clear_traffic"]
    stage.refuses = None
    await stage.judge.tick()
    await stage.judge.settled()
    assert stage.plan is None
    assert stage.decisions() == {"error_rate": 1}


async def test_a_plan_without_a_guard_is_left_alone() -> None:
    stage = Stage(TrafficPlan(shares={CANARY: 0.1}))
    stage.answer(CANARY, 500, error=FAILED)
    await stage.judge.tick()
    await stage.judge.settled()
    assert (stage.done, stage.judge.standings("risk")) == ([], [])


async def test_a_version_that_nobody_can_have_is_not_judged() -> None:
    stage = Stage(plan_of(shares={"bbbbbbbb": 0.1}))
    stage.answer(CANARY, 100, error=FAILED)
    await stage.judge.tick()
    assert stage.done == []
    assert [standing.canary for standing in stage.judge.standings("risk")] == [False]


async def test_a_canary_that_is_tried_again_begins_anew() -> None:
    stage = Stage(plan_of())
    stage.answer(STABLE, 100)
    stage.answer(CANARY, 20, error=FAILED)
    await stage.judge.settled()
    stage.answer(STABLE)
    stage.plan = plan_of()
    stage.answer(CANARY, 5)
    assert [standing.failures for standing in stage.judge.standings("risk")] == [0, 0]
    assert stage.verbs == ["clear_traffic"]


async def test_a_larger_share_keeps_what_is_known() -> None:
    stage = Stage(plan_of())
    stage.answer(CANARY, 10)
    stage.plan = plan_of(shares={CANARY: 0.5})
    assert [standing.answers for standing in stage.judge.standings("risk")] == [0, 10]


async def test_a_canary_is_probed_when_it_is_due() -> None:
    stage = Stage(plan_of(Guard(probe_seconds=60)))
    await stage.judge.tick()
    stage.now = 59.0
    await stage.judge.tick()
    assert stage.probes == []
    stage.now = 60.0
    await stage.judge.tick()
    await stage.judge.tick()
    assert stage.probes == [CANARY]
    stage.now = 120.0
    stage.probe_error = EngineDeadError("restarting")
    await stage.judge.tick()
    assert (stage.probes, stage.done) == ([CANARY, CANARY], [])


async def test_a_canary_that_no_longer_answers_as_trained_is_taken_back() -> None:
    stage = Stage(plan_of(Guard(probe_seconds=60)))
    await stage.judge.tick()
    stage.now = 60.0
    stage.probe_error = ProbeFailedError(
        "unlike its training", cause="unlike_training", numbers={"limit": 0.3}
    )
    await stage.judge.tick()
    await stage.judge.settled()
    assert stage.done == [("clear_traffic", "canary", "risk@bbbbbbbb: unlike its training")]
    assert stage.decisions() == {"probe": 1}


async def test_a_probe_that_could_not_be_made_says_nothing() -> None:
    stage = Stage(plan_of(Guard(probe_seconds=60)))
    await stage.judge.tick()
    stage.now = 60.0
    stage.probe_error = ProbeFailedError("no case fits")
    await stage.judge.tick()
    await stage.judge.settled()
    assert stage.done == []


async def test_a_canary_that_is_not_live_is_not_probed() -> None:
    stage = Stage(plan_of(Guard(probe_seconds=60)))
    await stage.judge.tick()
    stage.now = 60.0
    stage.known[CANARY].advance(AdapterState.DRAINING)
    await stage.judge.tick()
    assert stage.probes == []


async def test_a_rollout_gives_more_step_by_step_and_promotes_in_the_end() -> None:
    rollout = Rollout(steps=[0.1, 0.5], step_seconds=60)
    stage = Stage(plan_of(rollout=rollout))
    stage.answer(CANARY, 19)
    stage.now = 60.0
    await stage.judge.tick()
    assert stage.done == []
    stage.answer(CANARY)
    await stage.judge.tick()
    assert stage.plan is not None
    assert stage.plan.shares == {CANARY: 0.5}
    stage.answer(CANARY, 100)
    await stage.judge.tick()
    assert stage.verbs == ["set_traffic"]
    stage.now = 120.0
    await stage.judge.tick()
    assert stage.verbs == ["set_traffic", "promote"]
    assert (stage.stable, stage.decisions()) == (CANARY, {"promoted": 1})


async def test_a_rollout_ends_with_the_canary() -> None:
    stage = Stage(plan_of(rollout=Rollout(steps=[0.5], step_seconds=1)))
    stage.answer(STABLE, 100)
    stage.answer(CANARY, 30, error=FAILED)
    stage.now = 2.0
    await stage.judge.tick()
    await stage.judge.settled()
    assert stage.verbs == ["clear_traffic"]


async def test_the_judge_ends_with_what_it_was_doing() -> None:
    stage = Stage(plan_of())
    stage.judge.start()
    stage.answer(STABLE, 100)
    stage.answer(CANARY, 30, error=FAILED)
    await stage.judge.close()
    await stage.judge.close()
    assert stage.done == []
