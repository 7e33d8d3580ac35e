"""Row 17: clients that send slowly, say nothing, or do not read."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack

import httpx
import pytest

from serve.engine.scripted import Script, ScriptedEngine
from tests.own_time import own_seconds
from tests.patience import patient
from tests.serve.faults.client import aborts, http, refusal, strangers, undisturbed, until, wire

DEADLINE_SECONDS = 0.5
SLACK_SECONDS = patient(1.5)


async def seconds_until_closed(line, *, drip: bytes = b"") -> tuple[float, float]:
    """How long the server keeps a connection that gets one byte of `drip` every 50 ms.

    By the clock, which the deadline is kept by, and of this process's own time: on a busy machine a server is late.
    """
    started, own = time.monotonic(), own_seconds()

    async def feed() -> None:
        for place in range(len(drip)):
            try:
                await line.send(drip[place : place + 1])
            except ConnectionError:
                return
            await asyncio.sleep(0.05)

    feeder = asyncio.create_task(feed())
    try:
        async with asyncio.timeout(patient(10)):
            assert await line.closed()
        return time.monotonic() - started, own_seconds() - own
    finally:
        feeder.cancel()


@pytest.mark.parametrize(
    "drip",
    [b"", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 200],
    ids=["says nothing", "one byte after the other"],
)
async def test_b5_17_a_head_that_does_not_arrive_in_time_is_cut_off(running_server, drip):
    server = await running_server(receive_seconds=DEADLINE_SECONDS)
    async with undisturbed(server), wire(server) as line:
        by_clock, own = await seconds_until_closed(line, drip=drip)
        assert by_clock > DEADLINE_SECONDS * 0.8
        assert own < DEADLINE_SECONDS + SLACK_SECONDS


async def test_b5_17_the_deadline_holds_for_the_second_request_of_a_connection_too(running_server):
    server = await running_server(receive_seconds=DEADLINE_SECONDS)
    async with undisturbed(server), wire(server) as line:
        await line.send(http("GET", "/livez"))
        assert (await line.answer()).status == 200
        _, own = await seconds_until_closed(line, drip=b"GET /livez HTTP/1.1\r\n" + b"x" * 200)
        assert own < DEADLINE_SECONDS + SLACK_SECONDS


@pytest.mark.parametrize(
    ("head", "after"),
    [(["Content-Length: 1000000"], b"x"), ([], b"\r\n")],
    ids=["a byte of a body that nobody asked for", "an empty line"],
)
async def test_b5_17_a_byte_after_the_answer_does_not_hold_the_connection(running_server, head, after):
    server = await running_server(receive_seconds=DEADLINE_SECONDS)
    async with undisturbed(server), wire(server) as line:
        await line.send(http("GET", "/livez", None, *head))
        assert (await line.answer()).status == 200
        await line.send(after)
        _, own = await seconds_until_closed(line)
        assert own < DEADLINE_SECONDS + SLACK_SECONDS


async def test_b5_17_a_body_that_drips_behind_the_answer_does_not_hold_the_connection(running_server):
    server = await running_server(receive_seconds=DEADLINE_SECONDS)
    async with undisturbed(server), wire(server) as line:
        await line.send(http("GET", "/livez", None, "Content-Length: 1000000"))
        assert (await line.answer()).status == 200
        _, own = await seconds_until_closed(line, drip=b"x" * 200)
        assert own < DEADLINE_SECONDS + SLACK_SECONDS


async def test_b5_17_after_a_body_that_nobody_asked_for_the_connection_is_still_good(running_server):
    server = await running_server()
    async with undisturbed(server), wire(server) as line:
        await line.send(http("GET", "/livez", None, "Content-Length: 4"))
        assert (await line.answer()).status == 200
        await line.send(b"body" + http("GET", "/livez"))
        assert (await line.answer()).status == 200


async def test_b5_17_a_body_that_does_not_arrive_in_time_gets_408(running_server):
    server = await running_server(receive_seconds=DEADLINE_SECONDS)
    async with undisturbed(server), wire(server) as line:
        await line.send(b'POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"prompt')
        answer = await line.answer()
        assert (answer.status, refusal(answer)["code"]) == (408, "body_timeout")
        assert answer.headers["connection"] == "close"
        assert answer.seconds < DEADLINE_SECONDS + SLACK_SECONDS
        assert await line.closed()
    assert strangers(server) == []


async def test_b5_17_a_body_that_keeps_dripping_gets_408_all_the_same(running_server):
    server = await running_server(receive_seconds=DEADLINE_SECONDS)
    async with undisturbed(server), wire(server) as line:
        await line.send(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n")
        answered = asyncio.create_task(line.answer())
        while not answered.done():
            await line.send(b" ")
            await asyncio.sleep(0.05)
        assert (await answered).status == 408
    assert strangers(server) == []


async def test_b5_17_hundreds_of_silent_connections_are_closed_and_good_clients_served(running_server):
    # Long enough for all to be there before the first one has to go.
    server = await running_server(receive_seconds=6 * DEADLINE_SECONDS)
    async with undisturbed(server) as bystander, AsyncExitStack() as stack:
        lines = await asyncio.gather(*(stack.enter_async_context(wire(server)) for _ in range(300)))
        finished = bystander.finished
        await until(lambda: len(server.server.server_state.connections) >= 300, "all are connected", 2)
        async with asyncio.timeout(patient(20)):
            assert all(await asyncio.gather(*(line.closed() for line in lines)))
        await until(lambda: len(server.server.server_state.connections) <= 4, "the connections are gone", 5)
        await until(lambda: bystander.finished > finished, "the good client is served", 5)


@pytest.mark.parametrize("route", ["/generate", "/v1/chat/completions"])
async def test_b5_17_a_client_that_never_reads_is_dropped_and_its_place_is_free(running_server, route):
    engine = ScriptedEngine(Script(), context_tokens=1_000_000)
    server = await running_server(engine=engine, send_seconds=DEADLINE_SECONDS)
    endless = {"max_tokens": 900_000, "stream": True}
    body = {
        "/generate": {"prompt": "a", "n": 16, "logprobs": 1, **endless},
        "/v1/chat/completions": {
            "model": "scripted",
            "messages": [{"role": "user", "content": "a"}],
            **endless,
        },
    }[route]
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    address = httpx.URL(server.url)
    await asyncio.get_running_loop().sock_connect(deaf, (address.host, address.port))
    try:
        await asyncio.get_running_loop().sock_sendall(deaf, http("POST", route, body))
        async with asyncio.timeout(patient(5)):
            await engine.wait_active(1)
        async with asyncio.timeout(patient(20)):  # the buffers on the way take some megabytes first
            await engine.wait_gone()
        await until(lambda: server.gateway.admission.requests == 0, "the place is free")
        assert aborts(server, "client") == 1
        assert len(engine.aborted) == 1
        # The socket is given back as well, though the client has not read what is still in the buffers.
        port = deaf.getsockname()[1]
        connections = server.server.server_state.connections
        await until(lambda: all(c.client[1] != port for c in connections), "the connection is gone", 5)
    finally:
        deaf.close()
    async with undisturbed(server):
        pass
