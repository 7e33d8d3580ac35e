"""Starts a server that is to be measured, waits for it, reads what it costs, and ends it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.errors import ServerStartError
from benchmarks.surroundings import CHECKOUT

_POLL_SECONDS = 0.5
_STOP_SECONDS = 30.0
_UP_ALREADY_SECONDS = 15.0  # for the first answer of a server that should run already
_LOG_LINES = 8
_ERROR = re.compile(r"(?:^|\] )[A-Z]\w*(?:Error|Exception): \S")


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How to start a server. Without a command it runs already, at `url`."""

    name: str
    title: str
    model: str  # what requests name as `model`
    ready_path: str
    command: Sequence[str] = ()  # "{port}" stands for the port
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    port: int | None = None  # None: a free one for each start

    def shown(self) -> dict[str, object]:
        """For the report: what a reader needs to start the same server."""
        return {"title": self.title, "command": list(self.command), "url": self.url, "model": self.model}


class Server:
    """A server that is up."""

    def __init__(self, spec: ServerSpec, url: str, process: subprocess.Popen[bytes] | None) -> None:
        self.spec = spec
        self.url = url
        self._process = process

    @property
    def started_here(self) -> bool:
        """Whether it ends with the measurement."""
        return self._process is not None

    def process_ids(self) -> list[int]:
        """All its processes; none for a server that was not started here, or that has ended."""
        if self._process is None:
            return []
        try:
            root = psutil.Process(self._process.pid)
            return [root.pid, *(child.pid for child in root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> tuple[float, float] | None:
        """(HTTP process, all its processes) so far; None for a server that was not started here."""
        if self._process is None:
            return None
        root = psutil.Process(self._process.pid)
        total = http = _cpu_seconds(root)
        for child in root.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += _cpu_seconds(child)
        return http, total


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def running(specs: Sequence[ServerSpec], *, logs: Path, ready_seconds: float) -> Iterator[dict[str, Server]]:
    """Servers by name, all up, for the length of the block. They start side by side.

    Raises ServerStartError with the end of the log of the one that did not come up.
    """
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_started(spec, logs)) for spec in specs]
        began = time.monotonic()
        for server, log in started:
            limit = ready_seconds if server.started_here else min(ready_seconds, _UP_ALREADY_SECONDS)
            _wait_ready(server, log, began + limit, limit)
        yield {server.spec.name: server for server, _ in started}


@contextlib.contextmanager
def _started(spec: ServerSpec, logs: Path) -> Iterator[tuple[Server, Path]]:
    log_path = logs / f"{spec.name.replace('/', '-')}.log"
    if not spec.command:
        yield Server(spec, (spec.url or "").rstrip("/"), None), log_path
        return
    port = spec.port or free_port()
    command = [part.replace("{port}", str(port)) for part in spec.command]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(spec.environment),
            cwd=CHECKOUT,
            start_new_session=True,
        )
    try:
        yield Server(spec, f"http://127.0.0.1:{port}", process), log_path
    finally:
        _stop(process)


def _wait_ready(server: Server, log: Path, deadline: float, ready_seconds: float) -> None:
    spec = server.spec
    while time.monotonic() < deadline:
        if server._process is not None and (code := server._process.poll()) is not None:
            raise ServerStartError(f"{spec.title} ended with exit code {code} while starting:\n{_tail(log)}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(server.url + spec.ready_path, timeout=5.0).status_code == 200:
                return
        time.sleep(_POLL_SECONDS)
    where = f"at {server.url}{spec.ready_path}"
    tail = f":\n{_tail(log)}" if server.started_here else "; is it running there?"
    raise ServerStartError(f"{spec.title} was not ready {where} after {ready_seconds:g} s{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then end its whole session: nothing stays behind."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(log: Path) -> str:
    """The first error that the server wrote, which is most often the cause, and its last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    first = next((place for place, line in enumerate(lines) if _ERROR.search(line)), len(lines))
    shown = lines[first : first + 1] + lines[max(first + 1, len(lines) - _LOG_LINES) :]
    return "\n".join(f"  {line}" for line in shown or lines[-_LOG_LINES:]) or "  (it wrote nothing)"


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
