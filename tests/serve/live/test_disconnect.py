"""A client that leaves: the engine stops working for it."""

from __future__ import annotations

import socket

import orjson
import pytest

from tests.patience import patient
from tests.serve.live.live_server import LiveServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

RUNNING = "vllm:num_requests_running"
ABORTED = 'hotswap_aborts_total{reason="client"}'
FREED_SECONDS = patient(2.0)
LONG = {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True}
LONG_CHAT = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "max_tokens": 1500,
    "ignore_eos": True,
}


def connect(server: LiveServer, route: str, body: dict) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    payload = orjson.dumps(body)
    head = f"POST {route} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
    return connection


@pytest.mark.parametrize(
    ("route", "body"), [("/generate", LONG), ("/v1/chat/completions", LONG_CHAT)], ids=["generate", "chat"]
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_engine_stops_when_the_client_goes(server, route, body, stream):
    server.wait_until(lambda: server.metric(RUNNING) == 0, 10)
    aborted = server.metric(ABORTED)
    with connect(server, route, {**body, "stream": stream}) as connection:
        if stream:
            while b"data: " not in connection.recv(65536):
                pass
        server.wait_until(lambda: server.metric(RUNNING) == 1, 60)
    freed = server.wait_until(lambda: server.metric(RUNNING) == 0, FREED_SECONDS)
    print(f"{route} stream={stream}: free after {freed:.3f} s")
    server.wait_until(lambda: server.metric(ABORTED) == aborted + 1, FREED_SECONDS)
    assert server.metric("hotswap_in_flight_requests") == 0
