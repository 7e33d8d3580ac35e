"""`/admin/events` and `/admin/audit`: everything that happens, as it happens and afterwards; refusals, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adapters.registry.records import Event
from serve.engine.scripted import Script
from serve.observability import events as events_module
from serve.schemas.operations import EventPage
from serve.shutdown import drain
from tests.patience import patient
from tests.serve.asgi_call import AsgiCall
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
KEY = "0123456789abcdef-the-key"
ADMIN = {"authorization": f"Bearer {KEY}"}


def parse(text: bytes | str) -> list[dict[str, str]]:
    """Fields of each server-sent event."""
    shown = text.decode() if isinstance(text, bytes) else text
    blocks = [block for block in shown.split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def load(gateway: ScriptedGateway, source: str = "here", seed: int = 0, key: str | None = None) -> Any:
    body = {"name": "risk", "source": gateway.make_adapter(source, seed=seed)}
    headers = {**ADMIN, **({"Idempotency-Key": key} if key is not None else {})}
    return await gateway.client.post("/admin/adapters", json=body, headers=headers)


async def audited(gateway: ScriptedGateway, **params: Any) -> list[tuple[str, str, str, str | None]]:
    """(actor, action, outcome, name), the oldest first."""
    await gateway.gateway.events.flush()
    response = await gateway.client.get("/admin/audit", params=params, headers=ADMIN)
    page = EventPage.model_validate(response.json())
    return [(event.actor, event.action, event.outcome, event.name) for event in reversed(page.events)]


async def test_a_stream_has_every_event_with_its_number_and_goes_on_where_it_was(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway()
    await load(gateway)
    await gateway.gateway.events.flush()
    everything = await gateway.client.get("/admin/events?after=0&seconds=0")
    assert everything.headers["content-type"].startswith("text/event-stream")
    events = parse(everything.text)
    assert [event["event"] for event in events] == ["state"] * 5 + ["load"]
    assert [int(event["id"]) for event in events] == [1, 2, 3, 4, 5, 6]
    rest = await gateway.client.get("/admin/events?seconds=0", headers={"Last-Event-ID": "4"})
    assert parse(rest.text) == events[4:]
    assert parse((await gateway.client.get("/admin/events?seconds=0")).text) == []
    other = await gateway.client.get("/admin/events?after=0&seconds=0&name=tone")
    assert parse(other.text) == []


async def test_a_follower_hears_what_happens_from_now_on_until_the_server_ends(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway()
    await load(gateway)
    await gateway.gateway.events.flush()
    call = gateway.call("GET", "/admin/events")
    status, headers = await call.head()
    assert (status, headers["cache-control"]) == (200, "no-cache")
    await load(gateway, "new", seed=1)
    heard: list[dict[str, str]] = []
    async with asyncio.timeout(patient(10)):
        while not any(event["event"] == "load" for event in heard):
            heard += parse((await call.read())["body"])
    assert int(heard[0]["id"]) == 7
    rest = asyncio.create_task(call.rest())
    await drain(gateway.gateway, patient(10))
    async with asyncio.timeout(patient(10)):
        await rest
        await call.task


async def test_a_follower_that_comes_back_from_another_registry_hears_what_happens_here(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway()
    await load(gateway)
    await gateway.gateway.events.flush()
    call = gateway.call("GET", "/admin/events", headers=[(b"last-event-id", b"1000000")])
    await call.head()
    await load(gateway, "new", seed=1)
    async with asyncio.timeout(patient(10)):
        while not (heard := parse((await call.read())["body"])):
            pass
    assert int(heard[0]["id"]) == 7
    call.leave()
    await call.task


async def test_a_follower_that_leaves_is_forgotten(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    call = gateway.call("GET", "/admin/events")
    await call.head()
    assert gateway.gateway.events._readers == 1
    call.leave()
    async with asyncio.timeout(patient(10)):
        await call.task
    assert gateway.gateway.events._readers == 0


async def test_a_follower_that_reads_nothing_is_dropped(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(send_seconds=0.05)
    call = AsgiCall(gateway.app, "GET", "/admin/events", slow=True)
    await load(gateway)
    async with asyncio.timeout(patient(10)):
        await call.task
    assert gateway.gateway.events._readers == 0


async def test_too_many_followers_are_told_to_wait(
    scripted_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "MAX_READERS", 0)
    gateway = await scripted_gateway()
    response = await gateway.client.get("/admin/events")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "busy")
    assert response.headers["retry-after"].isdigit()


async def test_every_verb_is_written_down_once_with_who_and_what(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(admin_key=KEY)
    first = (await load(gateway)).json()
    await gateway.client.post("/admin/adapters/validate", json={"source": "here"}, headers=ADMIN)
    digest = first["adapter"]["versions"][0]["digest"]
    await gateway.client.post(f"/admin/adapters/risk/versions/{digest}/pin", json={}, headers=ADMIN)
    await gateway.client.get("/admin/adapters", headers=ADMIN)
    await gateway.client.delete("/admin/adapters/risk", headers=ADMIN)
    assert await audited(gateway) == [
        ("admin", "load", "done", "risk"),
        ("admin", "validate", "done", None),
        ("admin", "pin", "done", "risk"),
        ("admin", "unload", "done", "risk"),
    ]
    assert [action for _, action, _, _ in await audited(gateway, action="load")] == ["load"]
    assert await audited(gateway, by="nobody") == []
    assert len(await audited(gateway, states="true")) > 5


async def test_a_change_that_writes_itself_down_is_not_written_twice(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(admin_key=KEY)
    made = await gateway.client.post("/admin/keys", json={"label": "shop"}, headers=ADMIN)
    await gateway.client.delete(f"/admin/keys/{made.json()['id']}", headers=ADMIN)
    assert [(actor, action) for actor, action, _, _ in await audited(gateway)] == [
        ("admin", "create_key"),
        ("admin", "revoke_key"),
    ]
    plain = await gateway.client.get(
        "/admin/audit", headers={"authorization": f"Bearer {made.json()['key']}"}
    )
    assert plain.status_code == 401


async def test_a_key_without_the_scope_is_refused_and_named(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(admin_key=KEY)
    made = (await gateway.client.post("/admin/keys", json={"label": "shop"}, headers=ADMIN)).json()
    plain = {"authorization": f"Bearer {made['key']}"}
    assert (await gateway.client.get("/admin/adapters", headers=plain)).status_code == 403
    lines = await audited(gateway)
    assert lines[-1] == (f"key:{made['id']}", "GET /admin/adapters", "insufficient_scope", None)


async def test_every_refused_call_is_written_down_and_no_key_is(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(no_effect=True), admin_key=KEY)
    here = gateway.make_adapter("here")
    client = gateway.client
    wrong = "a-wrong-key-of-some-length"
    asked = [
        await client.get("/admin/adapters"),
        await client.delete("/admin/adapters/risk", headers={"authorization": f"Bearer {wrong}"}),
        await client.put("/admin/adapters/risk", content=b"x"),
        await client.post("/admin/adapters", json={"name": "risk"}, headers=ADMIN),
        await client.post("/admin/adapters", content=b"x", headers=ADMIN),
        await client.post("/admin/adapters", json={"name": "Not/a name", "source": here}, headers=ADMIN),
        await client.get("/admin/adapters/nobody", headers=ADMIN),
        await client.put(
            "/admin/adapters/risk", content=b"x" * 600, headers={**ADMIN, "content-type": "application/x-tar"}
        ),
        await load(gateway, key="k"),
        await client.delete("/admin/adapters/risk", headers={**ADMIN, "Idempotency-Key": "k"}),
        await load(gateway, key="k"),
    ]
    assert [answer.status_code for answer in asked] == [401, 401, 401, 422, 415, 422, 404, 422, 422, 409, 422]
    lines = await audited(gateway)
    assert lines == [
        ("unknown", "GET /admin/adapters", "invalid_api_key", None),
        ("unknown", "DELETE /admin/adapters/{name}", "invalid_api_key", "risk"),
        ("unknown", "PUT /admin/adapters/{name}", "invalid_api_key", "risk"),
        ("admin", "POST /admin/adapters", "validation_error", None),
        ("admin", "POST /admin/adapters", "content_type", None),
        ("admin", "POST /admin/adapters", "adapter_name_invalid", None),
        ("admin", "GET /admin/adapters/{name}", "adapter_not_found", "nobody"),
        ("admin", "PUT /admin/adapters/{name}", "upload_refused", "risk"),
        ("admin", "load", "probe_failed", "risk"),
        ("admin", "DELETE /admin/adapters/{name}", "idempotency_key_reused", "risk"),
        ("admin", "POST /admin/adapters", "repeated", None),
    ]
    page = await client.get("/admin/audit", headers=ADMIN)
    assert KEY not in page.text
    assert wrong not in page.text
    assert str(gateway.settings.home) not in page.text


async def test_away_from_loopback_without_a_key_the_refusal_is_written_down(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(host="0.0.0.0")
    assert (await gateway.client.get("/admin/audit")).status_code == 403
    await gateway.gateway.events.flush()
    (record,) = await gateway.gateway.events.page()
    assert (record.event.actor, record.event.outcome) == ("unknown", "admin_disabled")
    assert record.event.detail["status"] == 403


async def test_the_audit_log_is_read_page_by_page(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    for number in range(5):
        gateway.gateway.events.note(Event("me", "load", "done", "risk", detail={"n": number}))
    await gateway.gateway.events.flush()
    seen, before = [], None
    while True:
        params = {"limit": 2, **({"before": before} if before is not None else {})}
        page = EventPage.model_validate((await gateway.client.get("/admin/audit", params=params)).json())
        seen += [event.detail["n"] for event in page.events]
        before = page.next_before
        if before is None:
            break
    assert seen == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "before=0", "name=A", "action=;drop", "by=a b"])
async def test_a_malformed_question_is_refused(scripted_gateway: MakeGateway, query: str) -> None:
    gateway = await scripted_gateway()
    assert (await gateway.client.get(f"/admin/audit?{query}")).status_code == 422
