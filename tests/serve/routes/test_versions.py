"""Verbs on versions over HTTP: promote, roll back, pin, prefetch, unload; the traffic plan of a name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from serve.schemas.admin import (
    AdapterView,
    LoadAnswer,
    MoveAnswer,
    TrafficAnswer,
    UnloadAnswer,
    VersionAnswer,
)
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
RISK = "/admin/adapters/risk"


async def load(gateway: ScriptedGateway, seed: int, **fields: Any) -> httpx.Response:
    source = gateway.make_adapter(f"risk-{seed}", seed=seed)
    return await gateway.client.post("/admin/adapters", json={"name": "risk", "source": source, **fields})


async def two_versions(gateway: ScriptedGateway) -> tuple[str, str]:
    """The version before, and the one that is live."""
    old, new = [(await load(gateway, seed)).json()["version"] for seed in (0, 1)]
    return old, new


async def answered_by(gateway: ScriptedGateway, adapter: str = "risk") -> str | None:
    body = {"prompt": "a", "adapter": adapter, "max_tokens": 1}
    response = await gateway.client.post("/generate", json=body)
    return str(response.json()["adapter"]) if response.status_code == 200 else None


def digits(version: str) -> str:
    return version.partition("@")[2]


async def test_promote_and_rollback_move_the_name_and_say_from_where(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    old, new = await two_versions(gateway)
    response = await gateway.client.post(f"{RISK}/promote", json={"version": old})
    moved = MoveAnswer.model_validate(response.json())
    assert (response.status_code, moved.version, moved.moved, moved.left) == (200, old, True, new)
    assert (moved.adapter.live, moved.adapter.desired, moved.adapter.previous) == (old, old, new)
    assert await answered_by(gateway) == old
    again = await gateway.client.post(f"{RISK}/promote", json={"version": digits(old), "expected_live": old})
    assert again.json()["moved"] is False
    back = await gateway.client.post(f"{RISK}/rollback", json={})
    assert MoveAnswer.model_validate(back.json()).version == new
    assert await answered_by(gateway) == new


async def test_who_expects_another_version_changes_nothing(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    old, new = await two_versions(gateway)
    refused = [
        await gateway.client.post(f"{RISK}/promote", json={"version": old, "expected_live": old}),
        await load(gateway, 2, expected_live=old),
        await load(gateway, 2, expected_live="none"),
    ]
    for response in refused:
        assert (response.status_code, response.json()["error"]["code"]) == (409, "adapter_conflict")
    assert await answered_by(gateway) == new
    assert (await load(gateway, 2, expected_live=new)).status_code == 201


async def test_a_version_can_be_loaded_beside_the_live_one(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    live = (await load(gateway, 0)).json()["version"]
    response = await load(gateway, 1, promote=False)
    answer = LoadAnswer.model_validate(response.json())
    assert (response.status_code, answer.created, answer.replaced) == (201, True, None)
    assert answer.version != live
    assert answer.adapter.live == live
    assert await answered_by(gateway) == live
    assert await answered_by(gateway, answer.version) == answer.version


async def test_pin_prefetch_and_unload_of_one_version(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    old, _ = await two_versions(gateway)
    url = f"{RISK}/versions/{digits(old)}"
    pinned = VersionAnswer.model_validate((await gateway.client.post(f"{url}/pin", json={})).json())
    assert (pinned.version, pinned.changed) == (old, True)
    assert [v.pinned for v in pinned.adapter.versions if v.version == old] == [True]
    assert (await gateway.client.post(f"{url}/pin", json={})).json()["changed"] is False
    assert await answered_by(gateway, old) == old
    busy = await gateway.client.delete(url)
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "adapter_conflict")
    unpinned = await gateway.client.delete(f"{url}/pin")
    assert VersionAnswer.model_validate(unpinned.json()).changed is True
    prefetched = await gateway.client.post(f"{url}/prefetch", json={})
    assert VersionAnswer.model_validate(prefetched.json()).version == old
    assert await answered_by(gateway, old) == old
    gone = await gateway.client.delete(url, params={"drain": "1s"})
    assert UnloadAnswer.model_validate(gone.json()).unloaded == [old]
    assert await answered_by(gateway, old) is None
    view = AdapterView.model_validate((await gateway.client.get(RISK)).json())
    assert {v.version: v.state for v in view.versions}[old] == "registered"


async def test_a_traffic_plan_is_shown_with_whole_digests_and_taken_back(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway()
    live = (await load(gateway, 0)).json()["version"]
    canary = (await load(gateway, 1, promote=False)).json()["version"]
    assert TrafficAnswer.model_validate((await gateway.client.get(f"{RISK}/traffic")).json()).traffic is None
    response = await gateway.client.put(f"{RISK}/traffic", json={"shares": {digits(canary): 1.0}})
    plan = TrafficAnswer.model_validate(response.json())
    assert plan.stable == live
    assert plan.traffic is not None
    (digest,) = plan.traffic.shares
    assert (len(digest), digest[:8]) == (64, digits(canary))
    assert await answered_by(gateway) == canary
    view = AdapterView.model_validate((await gateway.client.get(RISK)).json())
    assert {v.version: v.share for v in view.versions}[canary] == 1.0
    cleared = await gateway.client.delete(f"{RISK}/traffic")
    assert TrafficAnswer.model_validate(cleared.json()).traffic is None
    assert await answered_by(gateway) == live


async def test_what_does_not_exist_is_404(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    await load(gateway, 0)
    client, nobody, none = gateway.client, "/admin/adapters/nobody", "0" * 8
    asked = [
        await client.post(f"{nobody}/promote", json={"version": none}),
        await client.post(f"{nobody}/rollback", json={}),
        await client.get(f"{nobody}/traffic"),
        await client.put(f"{nobody}/traffic", json={"shares": {none: 0.5}}),
        await client.post(f"{RISK}/promote", json={"version": none}),
        await client.post(f"{RISK}/versions/{none}/pin", json={}),
        await client.delete(f"{RISK}/versions/{none}/pin"),
        await client.post(f"{RISK}/versions/{none}/prefetch", json={}),
        await client.delete(f"{RISK}/versions/{none}"),
        await client.put(f"{RISK}/traffic", json={"shares": {none: 0.5}}),
    ]
    assert [(r.status_code, r.json()["error"]["code"]) for r in asked] == [(404, "adapter_not_found")] * len(
        asked
    )


@pytest.mark.parametrize("version", ["3f2a", "g" * 8, "A" * 8, "0" * 65, "..", "a@" + "0" * 8])
async def test_a_malformed_version_is_refused(scripted_gateway: MakeGateway, version: str) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.post(f"{RISK}/versions/{version}/pin", json={})
    assert response.status_code in (404, 422)


async def test_a_plan_that_does_not_add_up_is_refused(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    plan = {"shares": {"0" * 8: 0.7, "1" * 8: 0.7}}
    response = await gateway.client.put(f"{RISK}/traffic", json=plan)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "validation_error")


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("drain=90s", 90),
        ("drain=2m", 120),
        ("drain=1h", 3600),
        ("drain=1.5", 1.5),
        ("drain_seconds=7", 7),
        ("", 30),
    ],
)
async def test_the_drain_limit_is_written_as_people_do(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, query: str, seconds: float
) -> None:
    gateway = await scripted_gateway()
    await load(gateway, 0)
    limits: list[float] = []
    genuine = gateway.gateway.adapters._retirement.drain

    async def drain(alias: str, limit_seconds: float) -> None:
        limits.append(limit_seconds)
        await genuine(alias, limit_seconds)

    monkeypatch.setattr(gateway.gateway.adapters._retirement, "drain", drain)
    assert (await gateway.client.delete(f"{RISK}?{query}")).status_code == 200
    assert limits == [seconds]


@pytest.mark.parametrize(
    "query", ["drain=2h", "drain=-1s", "drain=soon", "drain=", "drain=1s&drain_seconds=1"]
)
async def test_a_drain_limit_that_cannot_be_is_refused(scripted_gateway: MakeGateway, query: str) -> None:
    gateway = await scripted_gateway()
    await load(gateway, 0)
    assert (await gateway.client.delete(f"{RISK}?{query}")).status_code == 422
    assert await answered_by(gateway) is not None


async def test_a_dry_run_says_everything_and_does_nothing(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    good, bad = gateway.make_adapter("good"), gateway.make_adapter("bad")
    (gateway.settings.adapter_folder / bad / "adapter_config.json").write_text("[]")
    for source, ok in ((good, True), (bad, False)):
        response = await gateway.client.post("/admin/adapters/validate", json={"source": source})
        report = response.json()
        assert (response.status_code, report["ok"], report["problems"] == []) == (200, ok, ok)
    missing = await gateway.client.post("/admin/adapters/validate", json={"source": "missing"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (422, "adapter_source_refused")
    assert gateway.engine.adapters == {}
    assert (await gateway.client.get("/admin/adapters")).json()["adapters"] == []


async def test_an_address_that_is_not_allowed_is_refused_at_once(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    for source in ("s3://bucket/risk", "http://127.0.0.1/risk", "file:///etc"):
        response = await gateway.client.post("/admin/adapters", json={"name": "risk", "source": source})
        assert (response.status_code, response.json()["error"]["code"]) == (422, "adapter_source_refused")


async def test_a_misspelt_parameter_changes_nothing(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    _, live = await two_versions(gateway)
    response = await gateway.client.delete(f"{RISK}?drian=30s")
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "drian"
    assert "drain" in response.json()["error"]["message"]
    assert await answered_by(gateway) == live
