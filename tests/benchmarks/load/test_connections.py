"""Connections stay open from request to request, or are new ones, as asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.load.bench import prepare
from benchmarks.load.settings import load_bench_settings

MODELS = {"data": [{"id": "base", "max_model_len": 512}]}
ANSWER = {"choices": [{"text": "x"}], "usage": {"prompt_tokens": 16, "completion_tokens": 1}}


@contextmanager
def server_that_notes_connections(ports: list[int]) -> Iterator[str]:
    """Its address; `ports` gets the client's port of each request for an answer."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def say(self, said: Any) -> None:
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.say(MODELS)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            ports.append(self.client_address[1])
            self.say(ANSWER)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("keep_alive", [True, False])
def test_each_request_has_a_connection_of_its_own_where_none_is_kept(keep_alive: bool) -> None:
    ports: list[int] = []
    with server_that_notes_connections(ports) as url:
        settings = load_bench_settings(
            url=url,
            api="completions",
            stream=False,
            arrivals="constant:10",
            max_in_flight=1,
            seconds=0.5,
            warmup_seconds=0.0,
            answer_tokens="1",
            keep_alive=keep_alive,
        )
        bench = prepare(settings)
        ports.clear()
        run = bench.run("any", bench.load.arrivals)
    assert run.figures["counts"]["ok"] == 5
    assert len(ports) >= 5
    assert len(set(ports)) == (1 if keep_alive else len(ports))
