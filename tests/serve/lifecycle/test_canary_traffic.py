"""Canaries, stickiness and shadows as clients meet them, over HTTP on the scripted engine."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from adapters.registry.records import EventRecord
from adapters.registry.registry import Registry
from serve.engine.scripted import Script
from serve.lifecycle.traffic import TrafficPlan
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]


@dataclass
class Trial:
    """A gateway on which `risk` is a stable version with a canary or a shadow beside it."""

    made: ScriptedGateway
    stable: str
    other: str

    @classmethod
    async def begin(cls, make: MakeGateway, script: Script | None = None, **settings: Any) -> Trial:
        made = await make(script=script, raise_app_exceptions=False, **settings)
        stable = await made.load("risk", seed=1)
        source = made.make_adapter("risk-2", seed=2)
        other = await made.gateway.adapters.load("risk", source, actor="test", promote=False)
        return cls(made, stable, str(other.managed.version))

    @property
    def other_digest(self) -> str:
        return self.other.partition("@")[2]

    async def share(self, **plan: Any) -> None:
        """Put a plan in force; the versions are the other one."""
        for field in ("shares", "shadow"):
            if field in plan:
                plan[field] = {self.other_digest: plan[field]}
        await self.made.gateway.adapters.set_traffic("risk", TrafficPlan.model_validate(plan), actor="test")

    async def ask(self, **headers: str) -> httpx.Response:
        body = {"prompt": "hi", "adapter": "risk", "max_tokens": 2, "temperature": 0}
        return await self.made.client.post("/generate", json=body, headers=headers)

    async def until_taken_back(self, at_most: int) -> list[httpx.Response]:
        """Ask one by one until the plan is gone."""
        answers: list[httpx.Response] = []
        while self.made.gateway.adapters.board.traffic("risk") is not None:
            assert len(answers) < at_most, "the canary was not taken back"
            answers.append(await self.ask())
            await self.made.gateway.canaries.settled()
        return answers

    def value(self, name: str, **labels: str) -> float:
        return self.made.gateway.metrics.registry.get_sample_value(name, labels) or 0.0

    def events(self) -> list[EventRecord]:
        """What is written down in the registry."""
        with Registry(self.made.settings.registry) as registry:
            return registry.list_events(limit=100)

    async def shadows_done(self) -> None:
        async with asyncio.timeout(10):
            while self.made.gateway.shadows.sequences:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0)


GUARD = {"min_requests": 10, "max_error_rate": 0.05, "max_ttft_ratio": 2.0}


async def test_a_canary_gets_its_share_and_every_answer_names_its_version(
    scripted_gateway: MakeGateway,
) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.5)
    answers = [await trial.ask() for _ in range(60)]
    counts = Counter(answer.json()["adapter"] for answer in answers)
    assert set(counts) == {trial.stable, trial.other}
    assert min(counts.values()) > 10
    assert all(answer.headers["X-Hotswap-Adapter"] == answer.json()["adapter"] for answer in answers)
    assert all(answer.json()["text"] == f"{answer.json()['adapter']} " * 2 for answer in answers)


async def test_a_canary_that_fails_is_taken_back_and_nobody_else_has_an_error(
    scripted_gateway: MakeGateway,
) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.1, guard=GUARD)
    trial.made.engine.script.fail_versions = frozenset({trial.other})
    answers = await trial.until_taken_back(at_most=400)
    failed = [answer for answer in answers if answer.status_code != 200]
    assert {answer.headers["X-Hotswap-Adapter"] for answer in answers if answer.status_code == 200} == {
        trial.stable
    }
    assert len(failed) == GUARD["min_requests"]
    assert trial.value("hotswap_canary_decisions_total", outcome="error_rate") == 1
    after = [await trial.ask() for _ in range(20)]
    assert {answer.json()["adapter"] for answer in after} == {trial.stable}
    behind = trial.made.gateway.adapters.board.behind("risk")
    assert behind is not None
    assert str(behind.version) == trial.stable


async def test_the_rollback_is_in_the_audit_log_with_its_numbers(scripted_gateway: MakeGateway) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.9, guard=GUARD)
    trial.made.engine.script.fail_versions = frozenset({trial.other})
    await trial.until_taken_back(at_most=100)
    async with asyncio.timeout(10):
        while True:
            events = await asyncio.to_thread(trial.events)
            found = [event.event for event in events if event.event.actor == "canary"]
            if found:
                break
            await asyncio.sleep(0.01)
    (event,) = found
    assert (event.action, event.outcome) == ("clear_traffic", "done")
    assert "of the stable version's" in str(event.detail["reason"])


async def test_a_slow_canary_is_taken_back(scripted_gateway: MakeGateway) -> None:
    trial = await Trial.begin(scripted_gateway, Script(ttft_seconds=0.002))
    await trial.share(shares=0.5, guard=GUARD)
    trial.made.engine.script.slow_versions = {trial.other: 0.05}
    answers = await trial.until_taken_back(at_most=120)
    assert all(answer.status_code == 200 for answer in answers)
    assert trial.value("hotswap_canary_decisions_total", outcome="ttft") == 1


async def test_a_canary_that_does_well_is_left_alone(scripted_gateway: MakeGateway) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.5, guard=GUARD)
    for _ in range(100):
        assert (await trial.ask()).status_code == 200
    await trial.made.gateway.canaries.tick()
    await trial.made.gateway.canaries.settled()
    assert trial.made.gateway.adapters.board.traffic("risk") is not None
    shown = (await trial.made.client.get("/admin/adapters/risk/traffic")).json()["standings"]
    assert sum(standing["answers"] for standing in shown) == 100
    assert {standing["version"]: standing["canary"] for standing in shown} == {
        trial.stable: False,
        trial.other: True,
    }


async def test_a_canary_that_no_longer_answers_as_trained_is_taken_back_by_its_probe(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.1, guard={**GUARD, "probe_seconds": 1.0})
    judge = trial.made.gateway.canaries
    await judge.tick()
    trial.made.engine.script.no_effect = True
    monkeypatch.setattr(judge, "_clock", lambda: time.monotonic() + 2.0)
    await judge.tick()
    await judge.settled()
    assert trial.made.gateway.adapters.board.traffic("risk") is None
    assert trial.value("hotswap_canary_decisions_total", outcome="probe") == 1


async def test_a_session_stays_with_its_version(scripted_gateway: MakeGateway) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.5, sticky="session")
    seen: dict[str, set[str]] = {}
    for number in range(90):
        session = f"session-{number % 15}"
        answer = await trial.ask(**{"X-Session-Id": session})
        seen.setdefault(session, set()).add(answer.json()["adapter"])
    assert all(len(versions) == 1 for versions in seen.values())
    assert len({next(iter(versions)) for versions in seen.values()}) == 2
    unbound = {(await trial.ask()).json()["adapter"] for _ in range(40)}
    malformed = {(await trial.ask(**{"X-Session-Id": "a b"})).json()["adapter"] for _ in range(40)}
    assert unbound == malformed == {trial.stable, trial.other}


async def test_the_header_that_names_the_session_can_be_another(scripted_gateway: MakeGateway) -> None:
    trial = await Trial.begin(scripted_gateway, session_header="X-Conversation")
    await trial.share(shares=0.5, sticky="session")
    bound = {(await trial.ask(**{"X-Conversation": "c"})).json()["adapter"] for _ in range(30)}
    unbound = {(await trial.ask(**{"X-Session-Id": "c"})).json()["adapter"] for _ in range(40)}
    assert (len(bound), len(unbound)) == (1, 2)


async def test_openais_user_is_the_session_of_a_client_without_the_header(
    scripted_gateway: MakeGateway,
) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.5, sticky="session")
    seen: dict[str, set[str]] = {}
    for number in range(60):
        user = f"user {number % 10}"
        body = {"model": "risk", "prompt": "hi", "max_tokens": 1, "user": user}
        answer = await trial.made.client.post("/v1/completions", json=body)
        seen.setdefault(user, set()).add(answer.headers["X-Hotswap-Adapter"])
    assert all(len(versions) == 1 for versions in seen.values())
    assert len({next(iter(versions)) for versions in seen.values()}) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "hi", "adapter": "risk", "max_tokens": 2, "temperature": 0}),
        ("/generate", {"prompt": "hi", "adapter": "risk", "max_tokens": 2, "temperature": 0, "stream": True}),
        ("/lorax/generate", {"inputs": "hi", "parameters": {"adapter_id": "risk", "max_new_tokens": 2}}),
        ("/v1/completions", {"model": "risk", "prompt": "hi", "max_tokens": 2, "temperature": 0}),
        (
            "/v1/chat/completions",
            {
                "model": "risk",
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 2,
                "temperature": 0,
                "stream": True,
            },
        ),
    ],
)
async def test_a_shadow_is_asked_in_every_dialect_and_never_heard(
    scripted_gateway: MakeGateway, path: str, body: dict[str, Any]
) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shadow=1.0)
    answer = await trial.made.client.post(path, json=body)
    await trial.shadows_done()
    assert answer.status_code == 200
    assert answer.headers["X-Hotswap-Adapter"] == trial.stable
    assert trial.other not in answer.text
    live, copied = trial.made.engine.requests[-2:]
    assert (live.adapter and live.adapter.name, copied.adapter and copied.adapter.name) == (
        trial.stable,
        trial.other,
    )
    assert list(copied.prompt_token_ids) == list(live.prompt_token_ids)
    labels = {"adapter": "risk", "version": trial.other_digest}
    assert trial.value("hotswap_shadow_requests_total", outcome="done", **labels) == 1
    assert trial.value("hotswap_completion_tokens_total", **labels) == 0
    compared = sum(
        trial.value("hotswap_shadow_compared_total", result=result, **labels)
        for result in ("equal", "different")
    )
    assert compared == 1
    assert trial.made.holds_nothing


async def test_a_shadow_that_fails_or_is_slow_costs_clients_nothing(scripted_gateway: MakeGateway) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shadow=1.0)
    trial.made.engine.script.fail_versions = frozenset({trial.other})
    assert [(await trial.ask()).status_code for _ in range(10)] == [200] * 10
    await trial.shadows_done()
    trial.made.engine.script.fail_versions = frozenset()
    trial.made.engine.script.slow_versions = {trial.other: 60.0}
    async with asyncio.timeout(5):
        assert [(await trial.ask()).status_code for _ in range(20)] == [200] * 20
    labels = {"adapter": "risk", "version": trial.other_digest}
    assert trial.value("hotswap_shadow_requests_total", outcome="failed", **labels) == 10
    assert trial.value("hotswap_shadow_requests_total", outcome="dropped", **labels) == 12
    await trial.made.life.down()
    assert trial.made.engine.active == set()


async def test_a_shadow_does_not_hold_up_the_unload_of_its_version(scripted_gateway: MakeGateway) -> None:
    trial = await Trial.begin(scripted_gateway, drain_seconds=0.2)
    await trial.share(shadow=1.0)
    trial.made.engine.script.slow_versions = {trial.other: 60.0}
    await trial.ask()
    await trial.made.engine.wait_active(1)
    async with asyncio.timeout(10):
        await trial.made.gateway.adapters.clear_traffic("risk", actor="test")
        await trial.made.gateway.adapters.unload("risk", actor="test")
    assert trial.made.engine.active == set()


async def test_a_rollout_ends_with_the_canary_as_the_stable_version(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = await Trial.begin(scripted_gateway)
    await trial.share(shares=0.5, guard=GUARD, rollout={"steps": [0.5, 0.9], "step_seconds": 60.0})
    board, judge = trial.made.gateway.adapters.board, trial.made.gateway.canaries
    shares = []
    for minutes in (2, 4):
        while (standing := next((s for s in judge.standings("risk") if s.canary), None)) is None or (
            standing.answers < GUARD["min_requests"] * minutes
        ):
            assert (await trial.ask()).status_code == 200
        monkeypatch.setattr(judge, "_clock", lambda minutes=minutes: time.monotonic() + 60 * minutes)
        await judge.tick()
        plan = board.traffic("risk")
        shares.append(next(iter(plan.shares.values())) if plan is not None else None)
    assert shares == [0.9, None]
    assert (await trial.ask()).json()["adapter"] == trial.other
    assert trial.value("hotswap_canary_decisions_total", outcome="promoted") == 1
