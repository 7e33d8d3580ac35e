"""Servers that are no target, each with what is wrong about it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.load.client.target import Target, read_target
from benchmarks.load.errors import TargetError

MODELS = {"data": [{"id": "base", "max_model_len": 512}, {"id": "risk", "parent": "base"}]}
ANSWER = {"text": "x", "usage": {"prompt_tokens": 20, "completion_tokens": 1}}


@contextmanager
def answering(models: Any, answer: Any, status: int = 200) -> Iterator[str]:
    """The address of a server that says `models` to each GET and `answer` to each POST; text as it is."""

    class Handler(BaseHTTPRequestHandler):
        def say(self, said: Any, status: int) -> None:
            body = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.say(models, status)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.say(answer, 200)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked(url: str) -> Target:
    return read_target(url, "generate", adapters=None)


def test_what_a_server_serves_and_how_it_counts_is_read() -> None:
    with answering(MODELS, ANSWER) as url:
        assert asked(url + "/") == Target(url, "generate", "base", ("risk",), 512, 4)


@pytest.mark.parametrize(
    ("models", "answer", "said"),
    [
        ("<html>", ANSWER, "nothing that serves models"),
        ([], ANSWER, "does not answer like an LLM server"),
        ({"data": []}, ANSWER, "lists no model"),
        ({"data": ["base"]}, ANSWER, "lists no model"),
        ({"data": [{"object": "model"}]}, ANSWER, "lists no model"),
        (MODELS, "<html>", "does not answer like an LLM server"),
        (MODELS, [1], "does not answer like an LLM server"),
        (MODELS, {"text": "x"}, "does not count tokens"),
    ],
)
def test_what_is_no_llm_server_is_told_apart(models: Any, answer: Any, said: str) -> None:
    with answering(models, answer) as url, pytest.raises(TargetError, match=said):
        asked(url)


@pytest.mark.parametrize(("status", "said"), [(404, "address of an LLM server"), (401, "--key")])
def test_a_refusal_says_what_may_be_missing(status: int, said: str) -> None:
    with answering(MODELS, ANSWER, status) as url, pytest.raises(TargetError, match=said):
        asked(url)


@pytest.mark.parametrize("url", ["not a url", "http://127.0.0.1:9", "http://host:port", "http://[::"])
def test_an_address_where_nothing_is_names_itself(url: str) -> None:
    with pytest.raises(TargetError, match="nothing that serves models"):
        asked(url)
