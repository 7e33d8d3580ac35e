"""B5-16: the admin API asks for its key, whatever the request looks like."""

from __future__ import annotations

import contextlib
import hmac
from types import SimpleNamespace

import pytest

from serve.access.api_key import hash_key
from serve.errors import MissingKeyError
from tests.serve.faults.client import http, refusal, strangers, undisturbed, wire
from tests.serve.faults.keys import BAD_KEYS, KEY, ROUTES, make_key


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
