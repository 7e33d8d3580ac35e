"""Rows 1 and 16: a body is read for whoever may be answered, and for nobody else."""

from __future__ import annotations

import secrets

import pytest

from tests.serve.faults.client import REPLY_SECONDS, http, refusal, strangers, undisturbed, wire

KEY = secrets.token_hex(32)
GOOD = f"Authorization: Bearer {KEY}"
HALF_A_BODY = b"x" * 500_000
ASKED = {"prompt": "stranger", "max_tokens": 1}


@pytest.fixture
async def closed(running_server):
    """A server that answers nobody without a key."""
    return await running_server(admin_key=KEY, auth="required")


REFUSED = [
    ("POST", "/generate", [], 401),
    ("POST", "/v1/chat/completions", [], 401),
    ("POST", "/lorax/generate", ["Authorization: Bearer wrong"], 401),
    ("POST", "/admin/adapters", [], 401),
    ("DELETE", "/admin/adapters/risk", [], 401),
    ("POST", "/nowhere", [GOOD], 404),
    ("PUT", "/generate", [GOOD], 405),
    ("POST", "/admin/adapters", [GOOD, "Content-Type: text/plain"], 415),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), REFUSED)
async def test_b5_16_who_is_refused_by_the_head_is_refused_before_the_body_comes(
    closed, method, path, headers, status
):
    async with undisturbed(closed, key=KEY), wire(closed) as line:
        head = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Length: 1000000", *headers]
        await line.send("\r\n".join(head).encode() + b"\r\n\r\n")
        answer = await line.answer()
        assert answer.status == status
        assert answer.seconds < REPLY_SECONDS
        assert "connection" not in answer.headers
        # What still comes of it is thrown away, and the connection is good for the next request.
        await line.send(HALF_A_BODY)
        await line.send(HALF_A_BODY + http("POST", "/generate", ASKED, GOOD))
        assert (await line.answer()).status == 200
    assert len(strangers(closed)) == 1


async def test_b5_16_who_waits_for_leave_to_send_a_body_is_refused_without_it(closed):
    async with undisturbed(closed, key=KEY), wire(closed) as line:
        await line.send(http("POST", "/generate", None, "Content-Length: 1000000", "Expect: 100-continue"))
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (401, "invalid_api_key")
        assert answer.headers["connection"] == "close"
        assert await line.closed()
    assert strangers(closed) == []


async def test_b5_16_whoever_has_a_key_gets_leave_and_keeps_the_connection(closed):
    whole = http("POST", "/generate", ASKED, GOOD, "Expect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    async with wire(closed) as line:
        for _ in range(2):
            await line.send(head + b"\r\n\r\n")
            assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await line.send(body)
            answer = await line.answer()
            assert answer.status == 200
            assert "connection" not in answer.headers


async def test_b5_01_what_is_too_long_by_its_length_is_refused_by_the_head_too(closed):
    async with wire(closed) as line:
        await line.send(http("POST", "/generate", None, "Content-Length: 1048577", "Expect: 100-continue"))
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (413, "body_too_large")
        assert await line.closed()
