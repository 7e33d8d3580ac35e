"""Operations over HTTP: 202 and where to look, idempotency keys, and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from serve.engine.scripted import Script
from serve.schemas.operations import OperationList, OperationView
from tests.patience import patient
from tests.serve.asgi_call import AsgiCall, events_of
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
KEY = {"Idempotency-Key": "deploy-17"}
SLOW = 30.0


async def load(gateway: ScriptedGateway, query: str = "", **headers: str) -> httpx.Response:
    if not (gateway.settings.adapter_folder / "here").exists():  # an earlier load may be reading it
        gateway.make_adapter("here")
    body = {"name": "risk", "source": "here"}
    return await gateway.client.post(f"/admin/adapters{query}", json=body, headers=headers)


@pytest.fixture
async def held(scripted_gateway: MakeGateway) -> ScriptedGateway:
    """A gateway whose engine loads nothing until `gate` is set."""
    gateway = await scripted_gateway()
    genuine, gate = gateway.engine.load_adapter, asyncio.Event()

    async def load_adapter(handle: Any) -> None:
        await gate.wait()
        await genuine(handle)

    gateway.engine.load_adapter = load_adapter  # type: ignore[assignment, method-assign]
    gateway.engine.load_gate = gate  # type: ignore[attr-defined]
    return gateway


def release(gateway: ScriptedGateway) -> None:
    gateway.engine.load_gate.set()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "headers"), [("?wait=0", {}), ("", {"Prefer": "respond-async"}), ("?wait=0.05", {})]
)
async def test_what_takes_longer_is_202_and_goes_on(
    held: ScriptedGateway, query: str, headers: dict[str, str]
) -> None:
    response = await load(held, query, **headers)
    operation = OperationView.model_validate(response.json())
    assert (response.status_code, operation.state, operation.result) == (202, "running", None)
    url = response.headers["location"]
    assert url == f"/admin/operations/{operation.id}"
    release(held)
    ended = OperationView.model_validate((await held.client.get(url, params={"wait": SLOW})).json())
    assert (ended.state, ended.status, ended.error) == ("done", 201, None)
    assert ended.result is not None
    assert ended.result["created"] is True
    assert [phase.phase for phase in ended.phases] == ["check", "store", "load", "probe", "switch"]
    assert ended.ended_at is not None
    listed = OperationList.model_validate((await held.client.get("/admin/operations")).json())
    assert [one.id for one in listed.operations] == [operation.id]


async def test_what_fails_is_an_error_in_the_one_shape(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(load_error="out of slots"))
    response = await load(gateway)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "adapter_error")
    url = f"/admin/operations/{response.headers['x-operation-id']}"
    operation = OperationView.model_validate((await gateway.client.get(url)).json())
    assert (operation.state, operation.status, operation.result) == ("failed", 502, None)
    assert operation.error is not None
    assert operation.error["message"] == "out of slots"


async def test_the_same_request_with_the_same_key_is_answered_the_same(held: ScriptedGateway) -> None:
    first = await load(held, "?wait=0", **KEY)
    second = await load(held, "?wait=0", **KEY)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    release(held)
    third = await load(held, **KEY)
    fourth = await load(held, **KEY)
    assert (third.status_code, fourth.status_code) == (201, 201)
    assert third.json() == fourth.json()
    assert third.json()["created"] is True
    without = await load(held)
    assert (without.status_code, without.json()["created"]) == (200, False)


async def test_another_request_with_the_same_key_is_409(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    await load(gateway, **KEY)
    others = [
        await gateway.client.post(
            "/admin/adapters", json={"name": "tone", "source": gateway.make_adapter("here")}, headers=KEY
        ),
        await gateway.client.delete("/admin/adapters/risk", headers=KEY),
    ]
    for response in others:
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (409, "idempotency_key_reused")
        assert error["param"] == "Idempotency-Key"
    assert (await gateway.client.get("/admin/adapters/risk")).status_code == 200


async def test_a_key_outlives_a_restart(scripted_gateway: MakeGateway) -> None:
    first = await scripted_gateway()
    before = await load(first, **KEY)
    await first.life.down()
    second = await scripted_gateway()
    again = await load(second, **KEY)
    assert (again.status_code, again.json()) == (before.status_code, before.json())


async def test_an_error_that_is_repeated_has_the_id_of_its_own_request(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway(Script(no_effect=True))
    answers = [await load(gateway, **KEY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [422, 422]
    assert [answer.json()["error"]["request_id"] for answer in answers] == [
        answer.headers["x-request-id"] for answer in answers
    ]
    assert answers[0].headers["x-operation-id"] == answers[1].headers["x-operation-id"]


@pytest.mark.parametrize("key", ["", "a b", "k" * 129, "schlüssel", "a/b"])
async def test_a_malformed_key_is_refused(scripted_gateway: MakeGateway, key: str) -> None:
    gateway = await scripted_gateway()
    body = {"name": "risk", "source": gateway.make_adapter("here")}
    headers = [(b"idempotency-key", key.encode()), (b"content-type", b"application/json")]
    response = await gateway.client.post("/admin/adapters", json=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "validation_error")
    assert gateway.engine.adapters == {}


@pytest.mark.parametrize("wait", ["-1", "601", "nan", "inf", "soon"])
async def test_a_wait_out_of_bounds_is_refused(scripted_gateway: MakeGateway, wait: str) -> None:
    gateway = await scripted_gateway()
    assert (await load(gateway, f"?wait={wait}")).status_code == 422


async def test_an_operation_that_is_not_known_is_404(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    response = await gateway.client.get(f"/admin/operations/op-{'0' * 24}")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "operation_not_found")
    assert (await gateway.client.get("/admin/operations/1")).status_code == 422


async def test_a_client_that_leaves_ends_nothing(held: ScriptedGateway) -> None:
    call = held.call(
        "POST",
        "/admin/adapters",
        json={"name": "risk", "source": held.make_adapter("here")},
        headers=[(b"content-type", b"application/json")],
    )
    async with asyncio.timeout(patient(10)):
        while not held.gateway.adapters.busy:
            await asyncio.sleep(0.001)
    call.leave()
    release(held)
    async with asyncio.timeout(patient(10)):
        await held.gateway.operations.wait_quiet()
    assert (await held.client.get("/admin/adapters/risk")).json()["live"] is not None


async def test_an_operation_is_followed_to_its_end(held: ScriptedGateway) -> None:
    url = (await load(held, "?wait=0")).headers["location"]
    call = held.call("GET", url, headers=[(b"accept", b"text/event-stream")])
    start = await call.read()
    assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
    first = events_of((await call.read())["body"])
    assert first[0][1]["state"] == "running"
    release(held)
    rest = b"".join([part async for part in parts(call)])
    names, states = zip(*[(name, fields["state"]) for name, fields in events_of(rest)], strict=True)
    assert set(names) == {"operation"}
    assert states[-1] == "done"


async def parts(call: AsgiCall) -> Any:
    while True:
        message = await call.read()
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def test_a_drain_waits_for_operations(held: ScriptedGateway) -> None:
    from serve.shutdown import drain

    response = await load(held, "?wait=0")
    draining = asyncio.create_task(drain(held.gateway, patient(10)))
    await asyncio.sleep(0)
    refused = await load(held)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert not draining.done()
    release(held)
    await draining
    ended = (await held.client.get(response.headers["location"])).json()
    assert (ended["state"], ended["status"]) == ("done", 201)


async def test_a_drain_that_runs_out_of_time_ends_operations_with_a_reason(held: ScriptedGateway) -> None:
    from serve.shutdown import drain

    response = await load(held, "?wait=0", **KEY)
    await drain(held.gateway, 0.05)
    ended = (await held.client.get(response.headers["location"])).json()
    assert (ended["state"], ended["status"], ended["error"]["code"]) == ("failed", 503, "aborted")
    assert held.engine.adapters == {}
