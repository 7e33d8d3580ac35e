"""Row 16: keys, hosts and content types; what a key may use, and what it may take."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from adapters.errors import RegistryUnavailableError
from adapters.registry.keys import KeyTable, NewKey
from serve.access.api_key import hash_key
from serve.access.api_key import make_key as fresh_key
from serve.errors import MissingKeyError
from tests.patience import patient
from tests.serve.faults.client import holds_nothing, http, refusal, strangers, undisturbed, until, wire

KEY = secrets.token_hex(32)
BAD_KEYS = {
    "none": [],
    "another": [f"Authorization: Bearer {secrets.token_hex(32)}"],
    "its beginning": [f"Authorization: Bearer {KEY[:-1]}"],
    "longer": [f"Authorization: Bearer {KEY}0"],
    "empty": ["Authorization: Bearer "],
    "no scheme": [f"Authorization: {KEY}"],
    "another scheme": [f"Authorization: Basic {KEY}"],
    "not ASCII": ["Authorization: Bearer sch\u00fcssel"],
    "not UTF-8": ["Authorization: Bearer \xff\xfe"],
    "two headers, the right one first": [f"Authorization: Bearer {KEY}", "Authorization: Bearer x"],
    "two headers, the right one last": ["Authorization: Bearer x", f"Authorization: Bearer {KEY}"],
    "in another header": [f"X-API-Key: {KEY}"],
    "60 kB": ["Authorization: Bearer " + "k" * 60_000],
}
ROUTES = [
    ("GET", "/admin/adapters", None),
    ("GET", "/admin/adapters/risk", None),
    ("POST", "/admin/adapters", {"name": "risk", "source": "risk"}),
    ("POST", "/admin/adapters", b"{not JSON"),
    ("POST", "/admin/adapters", {"unknown": "field"}),
    ("DELETE", "/admin/adapters/risk", None),
    ("DELETE", "/admin/adapters/NOT%20A%20NAME", None),
    ("GET", f"/admin/adapters?key={KEY}", None),
]


@pytest.fixture
async def server(running_server):
    server = await running_server(admin_key=KEY)
    server.make_adapter("risk")
    return server


async def test_b5_16_every_admin_route_asks_for_the_key(server):
    async with undisturbed(server):
        for method, path, body in ROUTES:
            for case, headers in BAD_KEYS.items():
                async with wire(server) as line:
                    await line.send(http(method, path, body, *headers))
                    answer = await line.answer()
                error = refusal(answer, f"{method} {path} {case}")
                assert (answer.status, error["code"]) == (401, "invalid_api_key"), f"{method} {path} {case}"
                assert answer.headers["www-authenticate"] == "Bearer"
                assert KEY not in answer.body.decode()
    assert server.gateway.adapters.board.versions() == []
    assert strangers(server) == []
    async with wire(server) as line:
        await line.send(http("POST", *ROUTES[2][1:], f"Authorization: Bearer {KEY}"))
        assert (await line.answer()).status == 201
        await line.send(http("GET", ROUTES[0][1], None, f"authorization: bearer {KEY}"))
        assert (await line.answer()).status == 200


async def test_b5_16_a_key_of_64_kb_is_too_large_a_head(server):
    async with undisturbed(server):
        for size in (65_536, 1_000_000):
            async with wire(server) as line:
                head = (
                    f"GET /admin/adapters HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {'k' * size}"
                )
                line.writer.write(head.encode() + b"\r\n\r\n")
                answer = await line.answer()
                assert (answer.status, refusal(answer)["code"]) == (431, "head_too_large")
                assert await line.closed()


HOSTS = [
    "a/?x=",
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1@evil.example",
    "localhost:80:80",
    "",
    "[::1",
]


async def test_b5_16_a_host_that_is_none_or_another_gets_400_on_every_route(server):
    async with undisturbed(server):
        for path in ("/admin/adapters", "/generate", "/livez", "/nowhere"):
            for host in HOSTS:
                async with wire(server) as line:
                    await line.send(http("GET", path, None, f"Authorization: Bearer {KEY}", host=host))
                    answer = await line.answer()
                    assert (answer.status, refusal(answer)["code"]) == (400, "host_refused"), f"{path} {host}"
        for head in (
            b"GET /admin/adapters HTTP/1.1\r\n\r\n",
            b"GET /admin/adapters HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            b"GET /admin/adapters HTTP/1.0\r\n\r\n",
        ):
            async with wire(server) as line:
                await line.send(head)
                assert refusal(await line.answer())["code"] == "host_refused"
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"):
            async with wire(server) as line:
                await line.send(http("GET", "/livez", None, host=host))
                assert (await line.answer()).status == 200


TARGETS = [
    "http://localhost/admin/adapters",
    "http://evil.example/admin/adapters",
    "//evil.example/admin/adapters",
    "/./admin/adapters",
    "//admin/adapters",
    "/ADMIN/adapters",
    "/admin/adapters/",
    "/admin%2fadapters",
    "/livez/../admin/adapters",
    "admin/adapters",
    "*",
]


async def test_b5_16_no_way_to_write_the_path_gets_around_the_key(server):
    for target in TARGETS:
        async with wire(server) as line:
            await line.send(http("GET", target))
            answer = await line.answer()
        assert answer.status in (400, 401, 404), f"{target}: {answer.body!r}"
        refusal(answer, target)


async def test_b5_16_every_wrong_key_is_compared_as_a_digest_in_constant_time(server, monkeypatch):
    """A clock is too coarse to see `==`; what is compared, and by what, is not."""
    compared = []

    def watched(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return hmac.compare_digest(left, right)

    monkeypatch.setattr("serve.access.authority.hmac", SimpleNamespace(compare_digest=watched))
    known = await make_key(server)
    compared.clear()
    access = server.gateway.access
    sent = [[h.partition(": ")[2].encode("latin-1") for h in headers] for headers in BAD_KEYS.values()]
    sent += [
        [f"Bearer {wrong}".encode()] for wrong in (known[:-64] + "0" * 64, "hsk_" + "0" * 16 + known[20:])
    ]
    for headers in sent:
        for ask in (access.admin, access.identify):
            with contextlib.suppress(MissingKeyError):
                ask(headers)
    assert access.admin([f"Bearer {KEY}".encode()]).name == "admin"
    assert access.identify([f"Bearer {known}".encode()]).key_id == known.split("_")[1]
    # The admin key's digest, and that of the key with the same id or of none.
    assert len(compared) == 2 * (2 * len(sent) + 2)
    assert {len(left) for left, _ in compared} == {len(right) for _, right in compared} == {32}
    assert {right for _, right in compared[::2]} == {hash_key(KEY.encode())}


async def test_b5_16_a_server_that_others_can_reach_has_no_admin_api_without_a_key(running_server):
    server = await running_server(host="0.0.0.0", auth="open")
    async with undisturbed(server):
        for method, path, body in ROUTES:
            for headers in ({}, {"Authorization": "Bearer x"}):
                content = http(method, path, body).partition(b"\r\n\r\n")[2]
                answer = await server.client.request(method, path, content=content, headers=headers)
                assert (answer.status_code, refusal(answer)["code"]) == (403, "admin_disabled")
    assert strangers(server) == []


async def test_b5_16_a_web_page_cannot_send_an_admin_request_in_a_users_name(running_server):
    """Without a key, the content type that a page may not send by itself is what keeps it out."""
    server = await running_server()
    server.make_adapter("risk")
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        headers = {"content-type": content_type} if content_type else {}
        answer = await server.client.post(
            "/admin/adapters", content=b'{"name": "risk", "source": "risk"}', headers=headers
        )
        assert (answer.status_code, refusal(answer)["code"]) == (415, "content_type"), content_type
    asked = await server.client.options(
        "/admin/adapters",
        headers={"origin": "http://evil.example", "access-control-request-method": "DELETE"},
    )
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control-")]
    assert server.gateway.adapters.board.versions() == []


async def test_b5_16_a_server_on_loopback_listens_nowhere_else(running_server):
    import psutil

    server = await running_server()
    port = int(server.url.rpartition(":")[2])
    listening = {
        connection.laddr.ip
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


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


async def make_key(server, **fields) -> str:
    """Make a key through the API and return it."""
    answer = await server.client.post(
        "/admin/keys", json={"label": "test", **fields}, headers={"authorization": f"Bearer {KEY}"}
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["key"])


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
