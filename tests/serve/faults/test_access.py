"""B5-16: users' keys, what they open, their limits, and their end."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import httpx
import pytest

from adapters.errors import RegistryUnavailableError
from adapters.registry.keys import KeyTable, NewKey
from serve.access.api_key import hash_key
from serve.access.api_key import make_key as fresh_key
from tests.patience import patient
from tests.serve.faults.client import holds_nothing, http, refusal, strangers, undisturbed, until, wire
from tests.serve.faults.keys import BAD_KEYS, KEY, ROUTES, make_key

CHAT = [{"role": "user", "content": "hello"}]


def asks(name: str) -> list[tuple[str, str, Any]]:
    """A request for one name in every dialect."""
    return [
        ("POST", "/generate", {"prompt": "hello", "adapter": name, "max_tokens": 2}),
        ("POST", "/generate", {"prompt": ["a", "b"], "adapter": name, "max_tokens": 2}),
        ("POST", "/generate", {"messages": CHAT, "adapter": name, "max_tokens": 2, "stream": True}),
        ("POST", "/v1/chat/completions", {"model": name, "messages": CHAT, "max_tokens": 2}),
        ("POST", "/v1/chat/completions", {"model": name, "messages": CHAT, "max_tokens": 2, "stream": True}),
        ("POST", "/v1/completions", {"model": name, "prompt": "hello", "max_tokens": 2}),
        ("GET", f"/v1/models/{name}", None),
        ("POST", "/lorax/generate", {"inputs": "hello", "parameters": {"adapter_id": name}}),
        ("POST", "/lorax/generate_stream", {"inputs": "hello", "parameters": {"adapter_id": name}}),
        ("POST", f"/lorax/models/{name}", {"inputs": "hello"}),
    ]


async def ask(server, key: str | None, method: str, path: str, body: dict | None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key is not None else {}
    answer: httpx.Response = await server.client.request(method, path, json=body, headers=headers)
    return answer


@pytest.fixture
async def closed(running_server):
    """A server that answers nobody without a key, with two adapters."""
    server = await running_server(admin_key=KEY, auth="required")
    for seed, name in enumerate(("risk", "tone")):
        await server.gateway.adapters.load(name, server.make_adapter(name, seed=seed), actor="test")
    return server


async def test_b5_16_where_keys_are_needed_nobody_is_answered_without_one(closed):
    revoked = await make_key(closed)
    await closed.gateway.keys.revoke(revoked.split("_")[1], actor="test")
    good = await make_key(closed)
    bad = BAD_KEYS | {
        "revoked": [f"Authorization: Bearer {revoked}"],
        "of another secret": [f"Authorization: Bearer {good[:-64]}{'0' * 64}"],
        "never made": [f"Authorization: Bearer {fresh_key().text}"],
    }
    routes = [
        *asks("risk"),
        ("GET", "/v1/models", None),
        ("GET", "/metrics", None),
        ("GET", "/lorax/info", None),
    ]
    routes += [("POST", "/generate", b"{not JSON"), ("POST", "/v1/completions", {"unknown": "field"})]
    async with undisturbed(closed, key=good):
        for method, path, body in routes:
            for case, headers in bad.items():
                async with wire(closed) as line:
                    await line.send(http(method, path, body, *headers))
                    answer = await line.answer()
                assert answer.status == 401, f"{method} {path} {case}"
                assert answer.headers["www-authenticate"] == "Bearer"
                if not path.startswith("/lorax"):
                    assert refusal(answer)["code"] == "invalid_api_key"
                assert good not in answer.body.decode()
        for path in ("/livez", "/readyz", "/lorax/health"):
            assert (await ask(closed, None, "GET", path, None)).status_code == 200
    assert strangers(closed) == []


async def test_b5_16_a_users_key_opens_no_admin_route(closed):
    user = await make_key(closed, metrics=True)
    async with undisturbed(closed, key=user):
        for method, path, body in ROUTES:
            async with wire(closed) as line:
                await line.send(http(method, path, body, f"Authorization: Bearer {user}"))
                answer = await line.answer()
            error = refusal(answer, f"{method} {path}")
            assert (answer.status, error["code"]) == (403, "insufficient_scope"), f"{method} {path}"
    assert (await ask(closed, user, "GET", "/metrics", None)).status_code == 200
    assert (await ask(closed, await make_key(closed), "GET", "/metrics", None)).status_code == 403
    admin = await make_key(closed, admin=True)
    assert (await ask(closed, admin, "GET", "/admin/adapters", None)).status_code == 200


async def test_b5_16_what_a_key_may_not_use_does_not_exist(closed):
    """Byte for byte the answer for a name that nobody has, but for the name and the request's id."""
    key = await make_key(closed, adapters=["tone", "to*"])
    version = str(closed.gateway.adapters.board.behind("risk").version)

    def neutral(answer: httpx.Response, name: str) -> tuple:
        body = re.sub(r"req-[0-9a-f]{24}", "REQUEST", answer.text).replace(name, "NAME")
        headers = {
            k: v for k, v in answer.headers.items() if k not in ("x-request-id", "date", "content-length")
        }
        return answer.status_code, headers, body

    async with undisturbed(closed, key=KEY):
        names = (("risk", "nope"), (version, "nope" + version[4:]), ("scripted", "unheard1"))
        for hidden, unknown in names:
            for (method, path, body), (_, other_path, other_body) in zip(
                asks(hidden), asks(unknown), strict=True
            ):
                one = neutral(await ask(closed, key, method, path, body), hidden)
                other = neutral(await ask(closed, key, method, other_path, other_body), unknown)
                assert one == other, path
                assert one[0] == 404, path
        # Without a name it is the base.
        assert (await ask(closed, key, "POST", "/generate", {"prompt": "a"})).status_code == 404
        listed = (await ask(closed, key, "GET", "/v1/models", None)).json()["data"]
        assert {card["id"].partition("@")[0] for card in listed} == {"tone"}
        for method, path, body in asks("tone"):
            assert (await ask(closed, key, method, path, body)).status_code == 200, path
    assert {r.adapter and r.adapter.name.partition("@")[0] for r in strangers(closed)} == {"tone"}


async def test_b5_16_a_revoked_key_is_refused_at_once_and_its_stream_goes_on(closed):
    key = await make_key(closed)
    closed.engine.script.tpot_seconds = 0.01
    body = {"prompt": "hello", "max_tokens": 20, "stream": True}
    async with closed.client.stream(
        "POST", "/generate", json=body, headers={"authorization": f"Bearer {key}"}
    ) as stream:
        chunks = stream.aiter_bytes()
        await anext(chunks)
        revoked = await ask(closed, KEY, "DELETE", f"/admin/keys/{key.split('_')[1]}", None)
        assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
        assert (await ask(closed, key, *asks("risk")[0])).status_code == 401
        rest = b"".join([chunk async for chunk in chunks])
    assert b"event: done" in rest


async def test_b5_16_a_key_that_was_made_or_revoked_elsewhere_is_known_soon(running_server):
    server = await running_server(admin_key=KEY, auth="required", key_refresh_seconds=0.02)
    elsewhere = KeyTable(server.gateway.keys._table._registry)
    fresh = fresh_key()

    async def status() -> int:
        return (await ask(server, fresh.text, "GET", "/v1/models", None)).status_code

    async def until_status(wanted: int) -> None:
        async with asyncio.timeout(patient(5)):
            while await status() != wanted:
                await asyncio.sleep(0.01)

    assert await status() == 401
    await asyncio.to_thread(elsewhere.add, NewKey(fresh.id, fresh.digest, "test", "acme"), actor="test")
    await until_status(200)
    await asyncio.to_thread(elsewhere.revoke, fresh.id, actor="test")
    await until_status(401)


def hold_time(server, monkeypatch) -> None:
    """Nothing that was taken runs out again, however long the test takes."""
    monkeypatch.setattr(server.gateway.quotas, "_clock", lambda: 1000.0)


async def test_b5_16_a_keys_limits_are_kept_and_told(closed, monkeypatch):
    hold_time(closed, monkeypatch)
    key = await make_key(closed, requests_per_minute=3, tokens_per_minute=100, concurrency=2, max_tokens=40)
    async with undisturbed(closed, key=KEY):
        first = await ask(closed, key, "POST", "/generate", {"prompt": "hello", "max_tokens": 10})
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-requests"] == "3"
        assert first.headers["x-ratelimit-remaining-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-tokens"] == str(100 - len("hello") - 10)
        for path, field, body in (
            ("/generate", "max_tokens", {"prompt": "a"}),
            ("/v1/completions", "max_tokens", {"model": "scripted", "prompt": "a"}),
            ("/v1/chat/completions", "max_completion_tokens", {"model": "scripted", "messages": CHAT}),
        ):
            wide = await make_key(closed, max_tokens=40)
            refused = await ask(closed, wide, "POST", path, {**body, field: 41})
            assert refused.status_code == 422
            assert "at most 40 tokens" in refusal(refused)["message"]
            lowered = await ask(closed, wide, "POST", path, body)
            assert lowered.status_code == 200
            assert lowered.json()["usage"]["completion_tokens"] <= 40
        over = await ask(closed, key, "POST", "/generate", {"prompt": "a" * 70, "max_tokens": 20})
        error = refusal(over)
        assert (over.status_code, error["code"]) == (429, "rate_limited")
        assert over.headers["retry-after"].isdigit()
        assert over.headers["x-ratelimit-remaining-requests"] == "2"  # it cost nothing
        never = await ask(closed, key, "POST", "/generate", {"prompt": "a" * 99, "max_tokens": 20})
        assert never.status_code == 422
        assert "100 tokens per minute" in refusal(never)["message"]
        assert (
            await ask(closed, key, "POST", "/generate", {"prompt": "a", "max_tokens": 1})
        ).status_code == 200
        over = await ask(
            closed, key, "POST", "/v1/completions", {"model": "scripted", "prompt": "a", "max_tokens": 1}
        )
        assert (over.status_code, refusal(over)["code"]) == (429, "rate_limited")
        assert 0 < int(over.headers["retry-after"]) <= 20


async def test_b5_16_what_a_stream_did_not_use_comes_back_also_when_its_client_leaves(closed, monkeypatch):
    hold_time(closed, monkeypatch)
    closed.engine.script.tpot_seconds = 0.01
    key = await make_key(closed, tokens_per_minute=1000, concurrency=1)
    body = {"prompt": "hello", "max_tokens": 800, "stream": True}
    async with wire(closed) as line:
        await line.send(http("POST", "/generate", body, f"Authorization: Bearer {key}"))
        answer = await line.answer()
        assert answer.headers["x-ratelimit-remaining-tokens"] == "195"
        at_once = await ask(closed, key, "POST", "/generate", {"prompt": "a", "max_tokens": 1})
        assert (at_once.status_code, at_once.headers["retry-after"]) == (429, "1")
        line.leave()
    await until(lambda: holds_nothing(closed), "everything given back")
    after = await ask(closed, key, "POST", "/generate", {"prompt": "a", "max_tokens": 1})
    assert after.status_code == 200
    assert int(after.headers["x-ratelimit-remaining-tokens"]) > 800


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/generate", {"prompt": "hello", "max_tokens": 800}),
        ("/generate", {"prompt": ["hello", "you"], "max_tokens": 400}),
        ("/v1/completions", {"model": "scripted", "prompt": "hello", "max_tokens": 800}),
        ("/lorax/generate", {"inputs": "hello", "parameters": {"max_new_tokens": 800}}),
    ],
    ids=["/generate", "several prompts", "/v1/completions", "/lorax/generate"],
)
async def test_b5_16_what_was_generated_for_a_client_that_did_not_wait_for_it_counts(closed, route, body):
    closed.engine.script.tpot_seconds = 0.001
    key = await make_key(closed, tokens_per_minute=1000)
    async with wire(closed) as line:
        await line.send(http("POST", route, body, f"Authorization: Bearer {key}"))
        await until(lambda: closed.engine.generated_tokens("req-") >= 300, "300 tokens", patient(10))
        line.leave()
    await until(lambda: holds_nothing(closed), "everything given back")
    after = await ask(closed, key, "POST", "/generate", {"prompt": "a", "max_tokens": 1})
    assert after.status_code == 200
    assert int(after.headers["x-ratelimit-remaining-tokens"]) < 1000 - 200  # some runs out meanwhile


async def test_b5_16_a_key_is_in_no_list_no_log_and_no_event(closed, caplog):
    with caplog.at_level("DEBUG"):
        key = await make_key(closed, label="web")
        await ask(closed, key, *asks("risk")[0])
        listed = await ask(closed, KEY, "GET", "/admin/keys", None)
        one = await ask(closed, KEY, "GET", f"/admin/keys/{key.split('_')[1]}", None)
    assert one.json() in listed.json()["keys"]
    secret = key[-64:]
    assert secret not in listed.text
    assert secret not in caplog.text
    assert hash_key(key.encode()).hex() not in listed.text
    events = closed.gateway.keys._table._registry.list_events()
    assert "create_key" in {record.event.action for record in events}
    assert secret not in str(events)


async def test_b5_16_on_loopback_no_key_is_needed_and_a_wrong_one_is_refused(running_server):
    server = await running_server(admin_key=KEY)
    assert (await ask(server, None, "POST", "/generate", {"prompt": "a"})).status_code == 200
    for wrong in ("not-needed", fresh_key().text):
        assert (await ask(server, wrong, "POST", "/generate", {"prompt": "a"})).status_code == 401
    unkeyed = await running_server()
    # Clients that must send something may, where there is nothing to mistype.
    assert (await ask(unkeyed, "not-needed", "POST", "/generate", {"prompt": "a"})).status_code == 200
    assert (await ask(unkeyed, fresh_key().text, "POST", "/generate", {"prompt": "a"})).status_code == 401


async def test_b5_16_when_the_registry_is_silent_for_too_long_no_key_is_believed(running_server, monkeypatch):
    server = await running_server(
        admin_key=KEY, auth="required", key_refresh_seconds=0.02, key_outage_seconds=900
    )
    key = await make_key(server)
    now = time.monotonic()
    monkeypatch.setattr(server.gateway.keys, "_clock", lambda: now)

    def silent(self, known_revision):
        raise RegistryUnavailableError("The registry's database does not answer.")

    async def until_status(wanted: int) -> httpx.Response:
        async with asyncio.timeout(patient(5)):
            while True:
                answer = await ask(server, key, "GET", "/v1/models", None)
                if answer.status_code == wanted:
                    return answer
                assert answer.status_code in (200, 503)
                await asyncio.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(KeyTable, "read_valid", silent)
        assert (await ask(server, key, "GET", "/v1/models", None)).status_code == 200
        now += 901
        answer = await until_status(503)
        assert refusal(answer)["code"] == "keys_unavailable"
        assert answer.headers["retry-after"].isdigit()
        # Which keys are good is not said to others either; the root key needs no registry.
        assert (await ask(server, fresh_key().text, "GET", "/v1/models", None)).status_code == 503
        assert (await ask(server, KEY, "GET", "/v1/models", None)).status_code == 200
    await until_status(200)
