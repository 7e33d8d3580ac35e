"""A server that was held up closes no connection on which something has arrived meanwhile.

Held up: the loop does nothing for longer than the limit. What arrives after it has looked at its sockets, and
before it looks at its clock, it has not seen when the limit is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable

import httpx

from tests.patience import patient
from tests.serve.conftest import RunningServer, ServerProcess
from tests.serve.faults.client import http, until

LIMIT_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 5.0  # uvicorn's


@contextlib.asynccontextmanager
async def connected(server: RunningServer) -> AsyncIterator[socket.socket]:
    """A client whose sends are one step each, without a turn of the loop."""
    address = httpx.URL(server.url)
    with socket.socket() as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (address.host, address.port))
        yield client


async def hold_up(seconds: float) -> None:
    """The loop is held up; when this returns it has looked at its sockets and not yet at its clock."""
    time.sleep(seconds)
    await asyncio.sleep(0)


async def status_of(client: socket.socket) -> str:
    async with asyncio.timeout(patient(10)):
        return (await asyncio.get_running_loop().sock_recv(client, 4096)).split(b"\r\n")[0].decode()


async def test_the_next_request_on_a_kept_connection_is_answered(running_server) -> None:
    server = await running_server()
    server.server.config.timeout_keep_alive = LIMIT_SECONDS
    async with connected(server) as client:
        client.send(http("GET", "/livez"))
        assert await status_of(client) == "HTTP/1.1 200 OK"
        await hold_up(LIMIT_SECONDS * 2)
        client.send(http("GET", "/admin/adapters"))
        assert await status_of(client) == "HTTP/1.1 200 OK"
        assert await status_of(client) == ""  # and then it is closed, for nothing comes any more


async def test_the_first_request_on_a_connection_is_answered(running_server) -> None:
    server = await running_server(receive_seconds=LIMIT_SECONDS)
    connections = server.server.server_state.connections
    async with connected(server) as client:
        port = client.getsockname()[1]
        await until(lambda: any(c.client[1] == port for c in connections), "the server has seen it")
        await hold_up(LIMIT_SECONDS * 2)
        client.send(http("GET", "/livez"))
        assert await status_of(client) == "HTTP/1.1 200 OK"


def test_a_process_that_was_stopped_answers_what_came_meanwhile(
    server_process: Callable[..., ServerProcess],
) -> None:
    server = server_process()
    with httpx.Client(base_url=server.url, timeout=patient(30)) as client:
        assert client.get("/livez").status_code == 200
        server.signal(signal.SIGSTOP)
        threading.Timer(KEEP_ALIVE_SECONDS + 0.3, server.signal, (signal.SIGCONT,)).start()
        assert client.get("/admin/adapters").status_code == 200
