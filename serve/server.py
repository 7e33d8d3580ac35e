"""The server process: uvicorn around the application, with a drain instead of a sudden end.

SIGTERM or SIGINT: not ready, new work gets 503, running work finishes within the drain limit, exit 0.
A second one ends the process at once. An engine that cannot be kept up and a failed start end it with a code that
is not 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Coroutine
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from bases.errors import HotswapError
from serve.allocator import keep_few_arenas
from serve.app import create_app
from serve.build import GatewayLife, http_limits
from serve.engine.protocol import MortalEngine
from serve.engine.supervised.supervisor import EngineFactory
from serve.gateway import Phase
from serve.http.protocol import limited_protocol
from serve.observability.startup import READY, note_stage
from serve.settings import ServeSettings
from serve.shutdown import drain

logger = logging.getLogger("hotswap.server")

EXIT_OK = 0
EXIT_START_FAILED = 3
EXIT_ENGINE_DIED = 4
_CLOSE_SECONDS = 5


class HotswapServer(uvicorn.Server):
    """A uvicorn server that drains on the first signal."""

    def __init__(
        self, settings: ServeSettings, *, engine: MortalEngine | EngineFactory | None = None
    ) -> None:
        """`engine`, one or a factory of them, replaces the one that the settings name; used by tests."""
        self.settings = settings
        self.exit_code = EXIT_OK
        self.life = GatewayLife(
            settings, engine=engine, on_ready=gc.freeze, on_lost=lambda: self._end(EXIT_ENGINE_DIED)
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        app = create_app(
            self._lifespan,
            http_limits(settings),
            admin_key=settings.admin_key is not None or settings.key_required,
            api_key=settings.key_required,
        )
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                loop="uvloop",
                http=limited_protocol(
                    receive_seconds=settings.receive_seconds, send_seconds=settings.send_seconds
                ),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_CLOSE_SECONDS,
            )
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Starts the gateway beside the server, so that /livez and /readyz answer meanwhile."""
        self._loop = asyncio.get_running_loop()
        start = asyncio.create_task(self._start(app))
        try:
            yield
        finally:
            for task in (start, *self._tasks):
                task.cancel()
            await asyncio.gather(start, *self._tasks, return_exceptions=True)
            gc.unfreeze()
            await self.life.down()

    async def _start(self, app: FastAPI) -> None:
        try:
            gateway = await self.life.up()
        except HotswapError as error:
            logger.error("the server cannot start: %s", error)
            self._end(EXIT_START_FAILED)
            return
        except Exception:  # the background boundary: whatever it was, a server that cannot start must end
            logger.exception("the server cannot start")
            self._end(EXIT_START_FAILED)
            return
        _set_aside()
        app.state.gateway = gateway
        logger.info("ready: %s with %d adapters", self.address, len(gateway.adapters.board.aliases()))
        note_stage(READY)

    @property
    def address(self) -> str:
        """URL of the first socket."""
        sockets = [s for server in self.servers for s in server.sockets]
        host, port = sockets[0].getsockname()[:2] if sockets else (self.settings.host, self.settings.port)
        shown = f"[{host}]" if sockets and sockets[0].family == socket.AF_INET6 else host
        return f"http://{shown}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, and say where."""
        await super().startup(sockets)
        if not self.should_exit:
            logger.info("listening on %s; the engine is starting", self.address)
            note_stage("listening")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: end now."""
        del frame
        if self._stopping or self._loop is None:
            # uvicorn then skips the lifespan's end and reports the tasks that it cuts off as errors.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            self.force_exit = True
            self.should_exit = True
            return
        self._stopping = True
        logger.info("signal %d: shutting down; a second one ends the process at once", sig)
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._drain()))

    async def _drain(self) -> None:
        gateway = self.life.gateway
        try:
            if gateway is not None and gateway.phase is Phase.READY:
                await drain(gateway, self.settings.drain_seconds)
        except Exception:  # the background boundary: whatever it was, who is told to end must end
            logger.exception("the server could not drain")
        finally:
            self.should_exit = True

    def _end(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self.should_exit = True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _set_aside() -> None:
    """Keep what lives until the end, or until the engine's, out of later collections.

    A full collection over the engine's and the libraries' objects stops every stream for most of a second. vLLM's
    own server does the same. After a restart of the engine its objects are set aside without a collection, which
    would stop whoever has waited for it once more: few are new, and most of those have been through one.
    """
    gc.collect()
    gc.freeze()


def serve(settings: ServeSettings, *, engine: MortalEngine | EngineFactory | None = None) -> int:
    """Run until a signal, a failed start or an engine that cannot be kept up; returns the exit code."""
    keep_few_arenas()
    server = HotswapServer(settings, engine=engine)
    try:
        server.run()
    except SystemExit as ended:  # uvicorn's way, with a line of its own, to say that it cannot listen there
        logger.error(
            "nothing can listen on %s, port %d; name another address with --host or --port",
            settings.host,
            settings.port,
        )
        return int(ended.code or EXIT_START_FAILED)
    finally:
        _end_children()
    return server.exit_code


def _end_children() -> None:
    """Leave no engine process behind, however this one ends."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
