"""A server on a tiny base that thinks aloud: it lives once, is ended under a stream, and lives again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.serve.live.live_server import LiveServer
from tests.serve.live.sse import Event, events
from tests.serve.live.thinking_base import make_thinking_home

NAMES = ("left", "right")
STREAM_TOKENS = 450  # of a context of 512: as long as it can be
_ARGUMENTS = (
    "--dtype=float32",
    "--kv-cache-gib=0.1",
    "--max-num-seqs=8",
    "--max-loras=2",
    "--max-lora-rank=8",
)


@dataclass(frozen=True)
class FirstLife:
    """What the first server said before and while it ended."""

    live: dict[str, str]  # adapter name to version
    answers: dict[str | None, dict[str, Any]]
    stream: list[Event]
    refused: httpx.Response
    not_ready: httpx.Response
    exit_code: int
    pids: list[int]
    log: str


@dataclass(frozen=True)
class TwoLives:
    """The first server's record and the second server, running."""

    first: FirstLife
    second: LiveServer


@contextmanager
def live_twice(home: Path) -> Iterator[TwoLives]:
    """Start, load two adapters, end under a stream, start again."""
    base = make_thinking_home(home, NAMES)
    arguments = (f"--base={base}", *_ARGUMENTS)
    with LiveServer(home, *arguments) as server:
        first = _first_life(server)
    with LiveServer(home, *arguments) as server:
        yield TwoLives(first, server)


def ask_everything(client: httpx.Client) -> dict[str | None, dict[str, Any]]:
    """The same prompt to the base and to each adapter."""
    answers = {}
    for who in (None, *NAMES):
        body = {"prompt": "When?\n", "adapter": who, "max_tokens": 16, "ignore_eos": True, "logprobs": 1}
        response = client.post("/generate", json=body)
        assert response.status_code == 200, response.text
        answers[who] = response.json()
    return answers


def _first_life(server: LiveServer) -> FirstLife:
    with server.client() as client:
        live = {}
        for name in NAMES:
            loaded = client.post("/admin/adapters", json={"name": name, "source": name})
            assert loaded.status_code == 201, loaded.text
            live[name] = loaded.json()["adapter"]["live"]
        answers = ask_everything(client)
        process = psutil.Process(server.process.pid)
        pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
        body = {"prompt": "When?\n", "max_tokens": STREAM_TOKENS, "ignore_eos": True, "stream": True}
        with client.stream("POST", "/generate", json=body) as response:
            received = events(response.iter_lines())
            stream = [next(received)]
            server.terminate()
            server.wait_for_line("draining: 1 requests", 30)
            refused = client.post("/generate", json={"prompt": "Too late"})
            not_ready = client.get("/readyz")
            stream += received
    return FirstLife(
        live, answers, stream, refused, not_ready, server.wait_for_exit(), pids, "".join(server.log)
    )
