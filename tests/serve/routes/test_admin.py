"""`/admin/adapters` over HTTP: statuses, shapes and who may."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.artefact import WEIGHTS_NAME
from adapters.registry.models import AliasRow, VersionRow
from adapters.registry.registry import Registry
from serve.engine.scripted import SCRIPTED_TARGET, Script
from serve.schemas.admin import AdapterList, AdapterView, LoadAnswer
from tests.patience import patient
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
KEY = "0123456789abcdef-the-key"


async def load(gateway: ScriptedGateway, name: str, source: str) -> tuple[int, dict[str, Any]]:
    response = await gateway.client.post("/admin/adapters", json={"name": name, "source": source})
    return response.status_code, response.json()


async def test_the_first_load_creates_and_the_second_changes_nothing(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    source = gateway.make_adapter("here")
    status, first = await load(gateway, "risk", source)
    answer = LoadAnswer.model_validate(first)
    assert (status, answer.created, answer.replaced) == (201, True, None)
    (version,) = answer.adapter.versions
    assert (version.state, version.live, version.source) == ("live", True, "here")
    assert version.version == answer.adapter.live == f"risk@{version.digest[:8]}"
    status, again = await load(gateway, "risk", source)
    assert (status, again["created"]) == (200, False)
    assert again["adapter"]["live"] == version.version


async def test_a_new_version_replaces_and_says_which(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    old = await gateway.load("risk", seed=0)
    status, answer = await load(gateway, "risk", gateway.make_adapter("new", seed=1))
    assert (status, answer["replaced"]) == (201, old)
    assert answer["adapter"]["live"] != old


async def test_the_list_has_desired_and_actual_state_and_no_paths(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(max_cpu_loras=9)
    version = await gateway.load("risk")
    await gateway.load("tone", seed=1)
    response = await gateway.client.get("/admin/adapters")
    listed = AdapterList.model_validate(response.json())
    assert [adapter.name for adapter in listed.adapters] == ["risk", "tone"]
    assert (listed.base, listed.resident, listed.max_cpu_loras) == ("scripted", 2, 9)
    assert str(gateway.settings.home) not in response.text
    one = AdapterView.model_validate((await gateway.client.get("/admin/adapters/risk")).json())
    assert one == listed.adapters[0]
    assert one.live == version


async def test_a_thousand_names_are_listed_in_under_50_ms_of_work(scripted_gateway: MakeGateway) -> None:
    first = await scripted_gateway()
    await first.load("risk")
    status = first.gateway.adapters.status("risk")
    assert status is not None
    digest = status.versions[0].version.digest
    await first.life.down()
    now = datetime.now(UTC)
    common = {
        "digest": digest,
        "short": digest[:8],
        "rank": 4,
        "num_bytes": 1,
        "source": "here",
        "created_at": now,
    }
    names = [f"name-{number}" for number in range(999)]
    with Registry(first.settings.registry) as registry, registry.session(writes=True) as session:
        fingerprint = SCRIPTED_TARGET.fingerprint
        session.add_all(VersionRow(name=name, base_fingerprint=fingerprint, **common) for name in names)
        session.flush()
        session.add_all(AliasRow(name=name, digest=digest, updated_at=now) for name in names)
    gateway = await scripted_gateway()
    seconds = []
    for _ in range(7):
        started = time.process_time()
        response = await gateway.client.get("/admin/adapters")
        seconds.append(time.process_time() - started)
    listed = AdapterList.model_validate(response.json())
    assert len(listed.adapters) == 1000
    assert all(adapter.live == adapter.desired for adapter in listed.adapters)
    assert sorted(seconds)[3] < patient(0.05)


async def test_a_failed_load_is_listed_with_its_reason_and_can_be_removed(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(Script(load_error="out of slots"))
    status, answer = await load(gateway, "risk", gateway.make_adapter("here"))
    assert (status, answer["error"]["code"]) == (502, "adapter_error")
    view = (await gateway.client.get("/admin/adapters/risk")).json()
    assert view["live"] is None
    assert [(v["state"], v["reason"]) for v in view["versions"]] == [("failed", "out of slots")]
    assert (await gateway.client.delete("/admin/adapters/risk")).status_code == 200
    assert (await gateway.client.get("/admin/adapters/risk")).status_code == 404


async def test_a_probe_that_fails_is_422(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(no_effect=True))
    status, answer = await load(gateway, "risk", gateway.make_adapter("here"))
    assert (status, answer["error"]["code"]) == (422, "probe_failed")


async def test_a_bad_adapter_comes_back_with_every_problem(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    source = gateway.make_adapter("bad")
    (gateway.settings.adapter_folder / source / WEIGHTS_NAME).write_bytes(b"\xff" * 16)
    (gateway.settings.adapter_folder / source / "adapter_config.json").write_text("[]")
    status, answer = await load(gateway, "risk", source)
    assert (status, answer["error"]["code"]) == (422, "adapter_check_failed")
    assert len(answer["error"]["problems"]) == 2
    assert gateway.engine.requests == []


async def test_unload_names_what_went_and_is_404_afterwards(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    response = await gateway.client.delete("/admin/adapters/risk", params={"drain_seconds": 1})
    assert (response.status_code, response.json()) == (200, {"name": "risk", "unloaded": [version]})
    response = await gateway.client.delete("/admin/adapters/risk")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "adapter_not_found")


async def test_an_unload_that_the_engine_does_not_do_is_an_error(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(keeps_unloaded=True))
    await gateway.load("risk")
    response = await gateway.client.delete("/admin/adapters/risk")
    assert (response.status_code, response.json()["error"]["code"]) == (502, "unload_failed")


@pytest.mark.parametrize("drain_seconds", ["-1", "3601", "nan", "inf", "soon"])
async def test_a_drain_limit_out_of_bounds_is_refused(
    scripted_gateway: MakeGateway, drain_seconds: str
) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    url = f"/admin/adapters/risk?drain_seconds={drain_seconds}"
    response = await gateway.client.delete(url)
    assert (response.status_code, response.json()["error"]["param"]) == (422, "drain_seconds")
    assert next(iter(gateway.engine.adapters.values())).name == version


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("", "here"),
        ("r" * 65, "here"),
        ("risk", ""),
        ("risk", "h" * 1025),
        ("Risk", "here"),
        ("../x", "here"),
    ],
)
async def test_malformed_names_and_sources_are_422(
    scripted_gateway: MakeGateway, name: str, source: str
) -> None:
    gateway = await scripted_gateway()
    gateway.make_adapter("here")
    assert (await load(gateway, name, source))[0] == 422


async def test_a_source_outside_the_root_is_refused_without_a_hint(
    scripted_gateway: MakeGateway, tmp_path: Path
) -> None:
    gateway = await scripted_gateway()
    (gateway.settings.adapter_folder / "link").symlink_to("/etc")
    answers = [await load(gateway, "risk", source) for source in ("link", "/etc", str(tmp_path), "missing")]
    assert {status for status, _ in answers} == {422}
    assert {answer["error"]["code"] for _, answer in answers} == {"adapter_source_refused"}


async def test_a_form_post_is_not_taken(scripted_gateway: MakeGateway) -> None:
    """What a web page can send to another site without being asked."""
    gateway = await scripted_gateway()
    gateway.make_adapter("here")
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = await gateway.client.post(
            "/admin/adapters",
            content=b'{"name": "risk", "source": "here"}',
            headers={"content-type": content_type},
        )
        assert response.status_code == 415
    assert gateway.engine.adapters == {}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/adapters"),
        ("GET", "/admin/adapters/risk"),
        ("POST", "/admin/adapters"),
        ("DELETE", "/admin/adapters/risk"),
    ],
)
async def test_every_route_asks_for_the_key(scripted_gateway: MakeGateway, method: str, path: str) -> None:
    gateway = await scripted_gateway(admin_key=KEY)
    await gateway.load("risk")
    body = {"json": {"name": "risk", "source": "risk-0"}} if method == "POST" else {}
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {KEY}"}):
        response = await gateway.client.request(method, path, headers=headers, **body)  # type: ignore[arg-type]
        assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    headers = {"authorization": f"Bearer {KEY}"}
    response = await gateway.client.request(method, path, headers=headers, **body)  # type: ignore[arg-type]
    assert response.status_code == 200


async def test_the_key_is_asked_for_before_the_body_is_looked_at(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(admin_key=KEY)
    for content in (b"{", b'{"name": 1}', b""):
        response = await gateway.client.post("/admin/adapters", content=content)
        assert response.status_code == 401


async def test_away_from_loopback_without_a_key_the_admin_api_is_off(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(host="0.0.0.0")
    response = await gateway.client.get("/admin/adapters")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "admin_disabled")


async def test_after_a_restart_the_same_versions_answer(scripted_gateway: MakeGateway) -> None:
    first = await scripted_gateway()
    version = await first.load("risk")
    await first.life.down()
    second = await scripted_gateway()
    response = await second.client.post("/generate", json={"prompt": "x", "adapter": "risk", "max_tokens": 1})
    assert response.json()["adapter"] == version


async def test_an_adapter_that_cannot_be_brought_up_again_is_503(scripted_gateway: MakeGateway) -> None:
    first = await scripted_gateway()
    await first.load("risk")
    await first.life.down()
    second = await scripted_gateway(Script(load_error="out of slots"))
    response = await second.client.post("/generate", json={"prompt": "x", "adapter": "risk"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "adapter_unavailable")
    assert "retry-after" in response.headers
