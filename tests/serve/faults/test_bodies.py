"""Rows 1 and 2: bodies that are too large, or not JSON."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.serve.faults.client import REPLY_SECONDS, http, refusal, resident_mib, strangers, undisturbed, wire

KIB = 1024
MIB = 1024 * KIB


async def test_b5_01_a_length_over_the_limit_is_refused_before_a_byte_of_the_body_is_read(running_server):
    server = await running_server()
    async with undisturbed(server), wire(server) as line:
        await line.send(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n")
        answer = await line.answer()
        error = refusal(answer)
        assert (answer.status, error["code"]) == (413, "body_too_large")
        assert "1048576 bytes" in error["message"]
        assert answer.headers["connection"] == "close"
        assert answer.seconds < REPLY_SECONDS
        assert await line.closed()
    assert strangers(server) == []


async def test_b5_01_a_body_without_a_length_is_cut_off_at_the_limit_while_it_arrives(running_server):
    server = await running_server(max_body_kib=256)
    async with undisturbed(server), wire(server) as line:
        await line.send(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        before, sent = resident_mib(), 0
        chunk = b"10000\r\n" + b'"' * 0x10000 + b"\r\n"
        answered = asyncio.create_task(line.answer())
        while not answered.done() and sent < 256 * MIB:
            try:
                await line.send(chunk)
            except ConnectionError:
                break
            sent += 0x10000
        answer = await answered
        assert (answer.status, refusal(answer)["code"]) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"
        # What the sockets' own buffers take, and not the 256 MiB that were on offer.
        assert sent < 32 * MIB
        assert resident_mib() - before < 32
        assert await line.closed()
    assert strangers(server) == []


FALSE_LENGTHS = [
    b"Content-Length: 12\r\nTransfer-Encoding: chunked",
    b"Content-Length: twelve",
    b"Content-Length: -1",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 1e9",
]


async def test_b5_01_a_false_length_is_refused_and_the_connection_closed(running_server):
    """What could be read in two ways is read in none."""
    server = await running_server()
    async with undisturbed(server):
        for head in FALSE_LENGTHS:
            async with wire(server) as line:
                await line.send(
                    b"POST /generate HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n0\r\n\r\n"
                )
                answer = await line.answer()
                assert (answer.status, refusal(answer, head)["code"]) == (400, "invalid_http")
                assert answer.headers["connection"] == "close"
                assert await line.closed()
    assert strangers(server) == []


async def test_b5_01_a_body_longer_than_its_length_is_no_second_request(running_server):
    """The rest is read as the next request, which it is not."""
    server = await running_server()
    async with undisturbed(server), wire(server) as line:
        await line.send(
            b'POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{"prompt":"a"}\r\n\r\n'
        )
        # Whichever comes first: the refusal of `{"` as JSON, or that of the rest as HTTP.
        assert refusal(await line.answer())["code"] in ("invalid_json", "invalid_http")
        assert b" 200 " not in await line.reader.read()
    assert strangers(server) == []


NOT_JSON = {
    "half": b'{"prompt": "a"',
    "single quotes": b"{'prompt': 'a'}",
    "trailing comma": b'{"prompt": "a",}',
    "ten thousand levels": b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "ten thousand open levels": b"[" * 10_000,
    "three hundred levels in a schema": b'{"prompt": "a", "response_format": {"type": "json_schema", '
    b'"json_schema": {"schema": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}}}",
    "a key twice": b'{"prompt": "a", "prompt": "b"}',
    "a key twice further down": b'{"messages": [{"role": "user", "role": "system", "content": "a"}]}',
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "Infinity": b'{"prompt": "a", "temperature": Infinity}',
    "-Infinity": b'{"prompt": "a", "temperature": -Infinity}',
    "an infinite number": b'{"prompt": "a", "temperature": 1e999}',
    "UTF-8 cut off": b'{"prompt": "\xe2\x82"}',
    "Latin-1": b'{"prompt": "\xe4"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "an overlong NUL": b'{"prompt": "\xc0\x80"}',
    "five thousand digits": b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    "a form": b"prompt=a&max_tokens=1",
}
NOT_TEXT = {
    "a NUL": b'{"prompt": "a\\u0000b"}',
    "half a surrogate pair": b'{"prompt": "\\ud83d"}',
    "the other half": b'{"prompt": "\\uDE00 a"}',
    "half a pair as a key": b'{"prompt": "a", "\\ud83d": 1}',
    "half a pair in a schema": b'{"prompt": "a", "response_format": {"type": "json_schema", '
    b'"json_schema": {"schema": {"title": "\\udfff"}}}}',
    "a NUL in a message": b'{"messages": [{"role": "user", "content": "\\u0000"}]}',
    "a NUL in a stop": b'{"prompt": "a", "stop": "\\u0000"}',
    "four thousand digits": b'{"prompt": "a", "seed": ' + b"9" * 4000 + b"}",
    "ninety bits in a schema": b'{"prompt": "a", "response_format": {"type": "json_schema", '
    b'"json_schema": {"schema": {"maximum": 1237940039285380274899124224}}}}',
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"prompt"',
}


@pytest.mark.parametrize(("bodies", "status"), [(NOT_JSON, 400), (NOT_TEXT, 422)], ids=["400", "422"])
async def test_b5_02_what_is_not_json_is_refused_without_quoting_it(running_server, bodies, status):
    server = await running_server()
    async with undisturbed(server):
        for route in ("/generate", "/v1/chat/completions", "/v1/completions", "/admin/adapters"):
            for case, body in bodies.items():
                answer = await server.client.post(
                    route, content=body, headers={"content-type": "application/json"}
                )
                error = refusal(answer, f"{route} {case}")
                assert answer.status_code == status, f"{route} {case}: {error}"
                assert status == 422 or error["code"] == "invalid_json"
                assert "999999" not in error["message"]
                assert answer.elapsed.total_seconds() < REPLY_SECONDS, case
    assert strangers(server) == []


async def test_b5_02_a_whole_pair_of_surrogates_is_a_character(running_server):
    """The guard does not refuse what every JSON writer sends."""
    server = await running_server()
    body = b'{"prompt": "\\ud83d\\ude00", "max_tokens": 1}'
    answer = await server.client.post("/generate", content=body)
    assert answer.status_code == 200
    assert bytes(server.engine.requests[0].prompt_token_ids).decode() == "😀"


def chunked(body: bytes, trailers: bytes, *headers: str) -> bytes:
    head = http("POST", "/generate", None, "Transfer-Encoding: chunked", *headers)
    return head + b"%x\r\n%s\r\n0\r\n%s" % (len(body), body, trailers)


@pytest.mark.parametrize(
    "endless",
    [b"a: b\r\n" * 10_000, b"a: " + b"b" * 60_000, b"a" * 60_000],
    ids=["one after the other", "one value", "one name"],
)
async def test_b5_01_trailers_without_end_are_refused_and_kept_nowhere(running_server, endless):
    server = await running_server()
    async with undisturbed(server), wire(server) as line:
        await line.send(chunked(b'{"prompt": "stranger"}', endless))
        before = resident_mib()
        for _ in range(4):
            with contextlib.suppress(ConnectionError):
                await line.send(endless)
            await asyncio.sleep(0)
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (431, "head_too_large")
        assert await line.closed()
        assert resident_mib() - before < 16
    assert strangers(server) == []


async def test_b5_01_a_trailer_is_no_header(running_server):
    server = await running_server(auth="required", admin_key="0123456789abcdef-the-key")
    key = b"Authorization: Bearer 0123456789abcdef-the-key\r\n\r\n"
    async with wire(server) as line:
        await line.send(chunked(b'{"prompt": "stranger"}', key))
        assert refusal(await line.answer())["code"] == "invalid_api_key"
        await line.send(
            chunked(
                b'{"prompt": "stranger", "max_tokens": 1}', b"X-Checksum: 1\r\n\r\n", key.decode().strip()
            )
        )
        assert (await line.answer()).status == 200  # one that says nothing does no harm
