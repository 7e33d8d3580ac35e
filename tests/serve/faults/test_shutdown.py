"""Row 22: SIGTERM with work in hand, a second SIGTERM, and SIGTERM while an adapter is loaded. Real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.tiny import make_tiny_adapter
from serve.engine.scripted import SCRIPTED_TARGET
from tests.patience import patient
from tests.serve.asgi_call import events_of
from tests.serve.conftest import READY_SECONDS

PROJECT = Path(__file__).resolve().parents[3]
STOP_SECONDS = patient(20.0)
_LISTENING = re.compile(r"listening on (http://\S+);")
_POLL_SECONDS = 0.02


@dataclass
class Process:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    client: httpx.Client

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(STOP_SECONDS)

    def wait_log(self, words: str) -> None:
        """Wait until the server has said so."""
        deadline = time.monotonic() + STOP_SECONDS
        while words not in self.log.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, (
                f"never said {words!r}:\n{self.log.read_text(encoding='utf-8')}"
            )
            time.sleep(_POLL_SECONDS)


@dataclass
class Stream:
    """A streaming client in a thread of its own."""

    client: httpx.Client
    num_tokens: int
    received: bytes = b""
    cut: bool = False
    status: int | None = None

    def __post_init__(self) -> None:
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self.begun.wait(STOP_SECONDS)

    def _run(self) -> None:
        body = {"prompt": "a", "max_tokens": self.num_tokens, "stream": True}
        try:
            with self.client.stream("POST", "/generate", json=body) as response:
                self.status = response.status_code
                for chunk in response.iter_bytes():
                    self.received += chunk
                    self.begun.set()
        except httpx.TransportError:
            self.cut = True

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """All events, when the stream has ended."""
        self._thread.join(STOP_SECONDS)
        assert not self._thread.is_alive()
        return events_of(self.received)


@pytest.fixture
def start(clean_environment: None, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`start({"tpot_seconds": 0.1}, drain_seconds=1)`: a ready server; the same home each time."""
    with contextlib.ExitStack() as stack:

        def begin(script: dict[str, Any] | None = None, **given: Any) -> Process:
            log = tmp_path / f"server-{time.monotonic_ns()}.log"
            settings = json.dumps({"home": str(tmp_path / "home"), **given})
            command = [
                sys.executable,
                "-m",
                "tests.serve.faults.scripted_server",
                json.dumps(script or {}),
                settings,
            ]
            with log.open("wb") as written:
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=written, cwd=PROJECT, env=dict(os.environ)
                )
            stack.callback(process.wait, STOP_SECONDS)
            stack.callback(process.kill)
            deadline = time.monotonic() + READY_SECONDS
            while (match := _LISTENING.search(log.read_text(encoding="utf-8"))) is None:
                assert process.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < deadline
                time.sleep(_POLL_SECONDS)
            client = stack.enter_context(httpx.Client(base_url=match[1], timeout=STOP_SECONDS))
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(_POLL_SECONDS)
            return Process(process, log, client)

        yield begin


def make_adapter(tmp_path: Path, name: str) -> None:
    make_tiny_adapter(
        tmp_path / "home" / "adapters" / name,
        linear_modules=SCRIPTED_TARGET.linear_modules,
        base_name="scripted",
    )


def test_b5_22_at_sigterm_running_work_finishes_and_new_work_is_sent_away(start):
    server = start({"tpot_seconds": 0.05}, drain_seconds=15)
    stream = Stream(server.client, num_tokens=40)
    server.terminate()
    server.wait_log("draining")
    ready = server.client.get("/readyz")
    assert ready.status_code == 503
    assert int(ready.headers["retry-after"]) > 0
    message = {"role": "user", "content": "a"}
    for route, body in [
        ("/generate", {"prompt": "a"}),
        ("/generate", {"prompt": "a", "stream": True}),
        ("/v1/chat/completions", {"model": "scripted", "messages": [message]}),
        ("/v1/completions", {"model": "scripted", "prompt": "a"}),
        ("/admin/adapters", {"name": "a", "source": "a"}),
    ]:
        answer = server.client.post(route, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining"), route
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["connection"] == "close"
        assert answer.elapsed.total_seconds() < patient(1)
    assert server.client.get("/livez").status_code == 200
    names = [name for name, _ in stream.events()]
    assert names == ["delta"] * 40 + ["done"]
    assert server.wait() == 0


def test_b5_22_a_stream_longer_than_the_drain_limit_ends_with_an_error_event(start):
    server = start({"tpot_seconds": 0.05}, drain_seconds=0.5)
    stream = Stream(server.client, num_tokens=4000)
    terminated = time.monotonic()
    server.terminate()
    events = stream.events()
    assert [name for name, _ in events[:-1]] == ["delta"] * (len(events) - 1)
    name, fields = events[-1]
    assert (name, fields["error"]["code"]) == ("error", "aborted")
    assert "shutting down" in fields["error"]["message"]
    assert not stream.cut
    assert server.wait() == 0
    assert time.monotonic() - terminated < patient(6)


def test_b5_22_without_work_the_server_ends_at_once(start):
    server = start(drain_seconds=30)
    terminated = time.monotonic()
    server.terminate()
    assert server.wait() == 0
    assert time.monotonic() - terminated < patient(5)
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def test_b5_22_a_second_sigterm_ends_the_process_at_once(start):
    server = start({"tpot_seconds": 0.05}, drain_seconds=60)
    stream = Stream(server.client, num_tokens=4000)
    server.terminate()
    server.wait_log("draining")
    assert server.client.get("/livez").status_code == 200  # it would go on for a minute
    terminated = time.monotonic()
    server.terminate()
    server.wait()
    assert time.monotonic() - terminated < patient(3)
    assert "done" not in [name for name, _ in stream.events()]


class Load:
    """A load of an adapter in a thread of its own."""

    def __init__(self, server: Process, name: str) -> None:
        self.status: int | None = None
        self.code: str | None = None

        def run() -> None:
            with contextlib.suppress(httpx.TransportError):
                answer = server.client.post("/admin/adapters", json={"name": name, "source": name})
                self.status = answer.status_code
                self.code = answer.json().get("error", {}).get("code")

        self._thread = threading.Thread(target=run)
        self._thread.start()
        server.wait_log("-> loading")

    def join(self) -> None:
        self._thread.join(STOP_SECONDS)
        assert not self._thread.is_alive()


def test_b5_22_a_load_that_fits_into_the_drain_limit_is_finished(start, tmp_path):
    make_adapter(tmp_path, "risk")
    server = start({"load_seconds": 1.0}, drain_seconds=15)
    load = Load(server, "risk")
    server.terminate()
    load.join()
    assert load.status == 201
    assert server.wait() == 0
    again = start()
    [adapter] = again.client.get("/admin/adapters").json()["adapters"]
    assert adapter["live"].startswith("risk@")


def test_b5_22_a_load_that_does_not_is_rolled_back_and_leaves_nothing_behind(start, tmp_path):
    make_adapter(tmp_path, "risk")
    server = start({"load_seconds": 600.0}, drain_seconds=0.5)
    load = Load(server, "risk")
    terminated = time.monotonic()
    server.terminate()
    load.join()
    assert (load.status, load.code) == (503, "aborted")
    assert server.wait() == 0
    assert time.monotonic() - terminated < patient(12)
    again = start()
    assert again.client.get("/admin/adapters").json()["adapters"] == []
    assert [card["id"] for card in again.client.get("/v1/models").json()["data"]] == ["scripted"]
    assert again.client.post("/generate", json={"prompt": "a", "adapter": "risk"}).status_code == 404
    loaded = again.client.post("/admin/adapters", json={"name": "risk", "source": "risk"})
    assert loaded.status_code == 201
