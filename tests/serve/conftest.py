"""A gateway on the scripted engine: inside the test, behind a real socket, or in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from adapters.registry.registry import Registry
from adapters.tiny import make_tiny_adapter
from serve.app import create_app
from serve.build import GatewayLife, http_limits
from serve.engine.scripted import SCRIPTED_TARGET, Script, ScriptedEngine
from serve.gateway import Gateway
from serve.server import HotswapServer
from serve.settings import ServeSettings
from tests.patience import patient
from tests.serve.asgi_call import AsgiCall

READY_SECONDS = 120.0
STOP_SECONDS = patient(30.0)
_POLL_SECONDS = 0.05
_PROJECT = Path(__file__).resolve().parents[2]
_LISTENING = re.compile(r"listening on (http://\S+);")


def make_source(root: Path, source: str, *, seed: int = 0, **options: Any) -> str:
    """Write an adapter for the scripted base below `root` and return the name to load it by."""
    make_tiny_adapter(
        root / source,
        linear_modules=SCRIPTED_TARGET.linear_modules,
        base_name="scripted",
        seed=seed,
        **options,
    )
    return source


@dataclass
class ScriptedGateway:
    """A gateway without a socket."""

    settings: ServeSettings
    life: GatewayLife
    gateway: Gateway
    app: FastAPI
    engine: ScriptedEngine
    client: httpx.AsyncClient  # answers arrive whole; `call` sees them as they come

    def make_adapter(self, source: str, *, seed: int = 0, **options: Any) -> str:
        """Write an adapter into the adapter root and return the name to load it by."""
        return make_source(self.settings.adapter_folder, source, seed=seed, **options)

    async def load(self, name: str, *, seed: int = 0) -> str:
        """Load an adapter made of `seed` and return its version's name."""
        source = self.make_adapter(f"{name}-{seed}", seed=seed)
        outcome = await self.gateway.adapters.load(name, source, actor="test")
        return str(outcome.managed.version)

    def call(self, method: str, path: str, **options: Any) -> AsgiCall:
        """One request whose client the test plays by hand."""
        return AsgiCall(self.app, method, path, **options)

    @property
    def holds_nothing(self) -> bool:
        """True when no request left anything behind: engine, queue, leases, running requests."""
        admission, board = self.gateway.admission, self.gateway.adapters.board
        return (
            not self.engine.active
            and (admission.running, admission.queued_requests, admission.queued_tokens) == (0, 0, 0)
            and admission.requests == 0
            and len(self.gateway.running) == 0
            and all(managed.in_flight == 0 for managed in board.versions())
        )


@dataclass
class RunningServer:
    """The whole server behind a real socket, in the test's own event loop."""

    url: str
    server: HotswapServer
    engine: ScriptedEngine
    client: httpx.AsyncClient
    task: asyncio.Task[None]

    @property
    def gateway(self) -> Gateway:
        """The gateway behind the socket."""
        assert self.server.life.gateway is not None
        return self.server.life.gateway

    def make_adapter(self, source: str, *, seed: int = 0, **options: Any) -> str:
        """Write an adapter into the adapter root and return the name to load it by."""
        return make_source(self.server.settings.adapter_folder, source, seed=seed, **options)

    def terminate(self) -> None:
        """What SIGTERM does."""
        self.server.handle_exit(signal.SIGTERM, None)

    async def wait_stopped(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the end of the server and return its exit code."""
        async with asyncio.timeout(timeout_seconds):
            await asyncio.shield(self.task)
        return self.server.exit_code


@dataclass
class ServerProcess:
    """`hotswap serve` in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    home: Path
    log: Path

    def make_adapter(self, source: str, *, seed: int = 0, **options: Any) -> str:
        """Write an adapter into the adapter root and return the name to load it by."""
        return make_source(self.home / "adapters", source, seed=seed, **options)

    def signal(self, number: int) -> None:
        """Send a signal to the server."""
        self.process.send_signal(number)

    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the end of the process and return its exit code."""
        return self.process.wait(timeout_seconds)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No HOTSWAP_* setting from outside, and none that stays behind."""
    for name in os.environ:
        if name.startswith("HOTSWAP_") and not name.startswith("HOTSWAP_TEST_"):
            monkeypatch.delenv(name)
    # A variable that the code under test sets itself: monkeypatch restores only what it knows of.
    monkeypatch.setenv("HOTSWAP_CONFIG", "")
    yield


@cache
def migrated_registry() -> bytes:
    """A registry file with its tables, so that not every gateway has to make them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry.db"
        with Registry(f"sqlite:///{path}"):
            pass
        return path.read_bytes()


@pytest.fixture
def make_settings(clean_environment: None, tmp_path: Path) -> Callable[..., ServeSettings]:
    """Settings with a home of the test's own and the scripted engine."""

    def make(**given: Any) -> ServeSettings:
        registry = tmp_path / "home" / "registry.db"
        if not registry.exists():
            registry.parent.mkdir(exist_ok=True)
            registry.write_bytes(migrated_registry())
        given.setdefault("adapter_root", tmp_path / "adapters")
        return ServeSettings(home=tmp_path / "home", engine="scripted", port=0, **given)

    return make


@pytest.fixture
async def scripted_gateway(
    make_settings: Callable[..., ServeSettings],
) -> AsyncIterator[Callable[..., Awaitable[ScriptedGateway]]]:
    """`await scripted_gateway(script=Script(...), engine=ScriptedEngine(...), max_body_kib=1, ...)`.

    Keywords besides `script`, `engine` and `raise_app_exceptions` are settings. Several may live at once;
    the same home makes the second a restart of the first (after `await first.life.down()`).
    """
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            script: Script | None = None,
            engine: ScriptedEngine | None = None,
            raise_app_exceptions: bool = True,
            **given: Any,
        ) -> ScriptedGateway:
            settings = make_settings(**given)
            if engine is None:
                engine = ScriptedEngine(
                    script, max_num_seqs=settings.max_num_seqs or 64, max_cpu_loras=settings.max_cpu_loras
                )
            life = GatewayLife(settings, engine=engine)
            stack.push_async_callback(life.down)
            gateway = await life.up()
            app = create_app(lambda _: contextlib.nullcontext(), http_limits(settings))
            app.state.gateway = gateway
            transport = httpx.ASGITransport(app, raise_app_exceptions=raise_app_exceptions)
            client = await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
            )
            return ScriptedGateway(settings, life, gateway, app, engine, client)

        yield make


@pytest.fixture
async def running_server(
    make_settings: Callable[..., ServeSettings], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Awaitable[RunningServer]]]:
    """`await running_server(script=Script(...), drain_seconds=1, ...)`: real uvicorn on a free port, ready."""
    # Here it would look through all that the tests before have imported, for a second each time.
    monkeypatch.setattr("serve.server._set_aside", lambda: None)
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            script: Script | None = None, engine: ScriptedEngine | None = None, **given: Any
        ) -> RunningServer:
            settings = make_settings(**given)
            engine = engine or ScriptedEngine(
                script, max_num_seqs=settings.max_num_seqs or 64, max_cpu_loras=settings.max_cpu_loras
            )
            server = HotswapServer(settings, engine=engine)
            task = asyncio.create_task(server.serve())
            stack.push_async_callback(_end_server, server, task, engine)
            async with asyncio.timeout(READY_SECONDS):
                while not server.started and not task.done():
                    await asyncio.sleep(_POLL_SECONDS)
                client = await stack.enter_async_context(
                    httpx.AsyncClient(base_url=server.address, timeout=patient(5))
                )
                while not task.done() and (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(_POLL_SECONDS)
            if task.done():
                pytest.fail(f"the server ended before it was ready (exit code {server.exit_code})")
            return RunningServer(server.address, server, engine, client, task)

        yield make


async def _end_server(server: HotswapServer, task: asyncio.Task[None], engine: ScriptedEngine) -> None:
    server.should_exit = True
    engine.gate.set()
    engine.resume()
    done, _ = await asyncio.wait({task}, timeout=STOP_SECONDS)
    if not done:
        server.force_exit = True
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def server_process(clean_environment: None, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """`server_process("--drain-seconds", "1", env={...})`: `hotswap serve`, ready; killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, env: dict[str, str] | None = None, wait_ready: bool = True) -> ServerProcess:
        home = tmp_path / "home"
        log = tmp_path / f"server-{len(started)}.log"
        command = [sys.executable, str(_PROJECT / "hotswap.py"), "serve", "--engine", "scripted"]
        command += ["--port", "0", "--home", str(home), *arguments]
        with log.open("wb") as written:
            process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=written,
                cwd=_PROJECT,
                env={**os.environ, **(env or {})},
            )
        started.append(process)
        url = _wait_ready(process, log) if wait_ready else ""
        return ServerProcess(url, process, home, log)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(STOP_SECONDS)


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        match = _LISTENING.search(log.read_text(encoding="utf-8"))
        if match is not None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(match[1] + "/readyz", timeout=patient(5)).status_code == 200:
                    return match[1]
        time.sleep(_POLL_SECONDS)
    pytest.fail(f"the server is not ready (exit code {process.poll()}):\n{log.read_text(encoding='utf-8')}")
