"""Keeps an engine running: notices that it is gone, starts the next one, and lets waiting work go on.

    starting -> ready -> restarting -> restoring -> ready ...        lost: no more restarts        stopped

While it is `restarting` there is no engine. In `restoring` there is a fresh one that has no adapters yet: whoever
brings them back may use it, ordinary requests wait until it is `ready`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bases.errors import HotswapError
from serve.engine.protocol import MortalEngine
from serve.engine.supervised.backoff import Backoff, RestartRules
from serve.engine.supervised.life import EngineLife
from serve.engine.supervised.watchdog import Ending, WatchRules
from serve.errors import EngineDeadError, EngineNotReadyError
from serve.observability.metrics import GatewayMetrics

logger = logging.getLogger("hotswap.engine")

EngineFactory = Callable[[], MortalEngine]

# A restore that does not end by itself once its engine is gone is cut off after so long.
_RESTORE_GRACE_SECONDS = 10.0


class EngineState(enum.StrEnum):
    """What the supervisor is doing."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    RESTORING = "restoring"
    LOST = "lost"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SupervisionRules:
    """When an engine is given up, and how often a new one is started."""

    watch: WatchRules = field(default_factory=WatchRules)
    restarts: RestartRules = field(default_factory=RestartRules)


def _nothing() -> None:
    pass


class Supervisor:
    """The lives of one engine. Belongs to one event loop."""

    def __init__(self, factory: EngineFactory, rules: SupervisionRules) -> None:
        """`factory` makes an engine that has not been started; it may return the same one again."""
        self._factory = factory
        self._rules = rules
        self._backoff = Backoff(rules.restarts)
        self._state = EngineState.STARTING
        self._reason = ""
        self._since = time.monotonic()
        self._life: EngineLife | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._final = False
        self._restore: Callable[[], Awaitable[None]] | None = None
        self._metrics: GatewayMetrics | None = None
        self._on_ready: Callable[[], None] = _nothing
        self._on_lost: Callable[[], None] = _nothing

    @property
    def state(self) -> EngineState:
        """What the supervisor is doing."""
        return self._state

    @property
    def life(self) -> EngineLife | None:
        """The engine that can be called now, fresh ones included; None while there is none."""
        return self._life if self._life is not None and not self._life.over else None

    async def start(self) -> None:
        """Start the first engine; it is watched from now on. Raises what the engine's own start raises."""
        engine = self._factory()
        try:
            await engine.start()
        except BaseException:
            await asyncio.shield(engine.kill())
            raise
        self._life = EngineLife(engine, self._rules.watch)
        self._move(EngineState.READY)

    def supervise(
        self,
        restore: Callable[[], Awaitable[None]],
        *,
        metrics: GatewayMetrics | None = None,
        on_ready: Callable[[], None] = _nothing,
        on_lost: Callable[[], None] = _nothing,
    ) -> None:
        """From now on start a new engine when this one is gone, and call `restore` before it is ready.

        `on_ready` is called after each restart, `on_lost` once when there will be no further one.
        """
        self._restore, self._metrics = restore, metrics
        self._on_ready, self._on_lost = on_ready, on_lost
        self._task = asyncio.create_task(self._keep_alive(), name="engine supervisor")

    def finish(self) -> None:
        """Start no more engines: the server is about to end. One that is on its way may still come."""
        self._final = True

    async def stop(self) -> None:
        """End the engine, whatever it is doing, and start no other. Idempotent."""
        self._final = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({self._task})
        life, self._life = self._life, None
        if self._state is not EngineState.LOST:
            self._move(EngineState.STOPPED, "the engine was stopped")
        if life is not None:
            await life.close()

    def check(self) -> None:
        """Raises EngineNotReadyError, which says why, or EngineDeadError when no new work can be answered."""
        life = self.life
        if self._state is EngineState.READY and life is not None:
            if life.watchdog.stalled:
                raise EngineNotReadyError(
                    f"the engine has given no sign of life for {life.watchdog.silent_seconds:.0f} s; "
                    f"after {self._rules.watch.hang_seconds:g} s it is started again"
                )
            return
        unwatched = self._task is None and self._state is not EngineState.STARTING
        if unwatched or self._state in (EngineState.LOST, EngineState.STOPPED):
            raise EngineDeadError(self._reason or "the engine process is gone")
        rules, seconds = self._rules.restarts, time.monotonic() - self._since
        match self._state:
            case EngineState.READY:
                raise EngineNotReadyError("the engine has just gone; it is started again")
            case EngineState.STARTING:
                raise EngineNotReadyError("the engine is still starting")
            case EngineState.RESTORING:
                raise EngineNotReadyError(
                    f"the engine was started again and gets its adapters back, for {seconds:.0f} s now"
                )
            case _:
                raise EngineNotReadyError(
                    f"the engine is being started again, for {seconds:.0f} s now ({self._reason}; restart "
                    f"{self._backoff.recent} of at most {rules.max_restarts} in {rules.window_seconds:g} s)"
                )

    async def ready(self, after: EngineLife | None = None) -> EngineLife:
        """Wait for an engine that is ready, and is not `after`. Raises EngineDeadError when none will come."""
        while True:
            if self._state in (EngineState.LOST, EngineState.STOPPED):
                raise EngineDeadError(self._reason)
            life = self.life
            if self._state is EngineState.READY and life is not None and life is not after:
                return life
            if self._task is None and self._state is not EngineState.STARTING:
                raise EngineDeadError("the engine process is gone")
            await self._changed.wait()

    def now(self) -> EngineLife:
        """The engine that can be called now. Raises EngineNotReadyError while there is none, EngineDeadError."""
        life = self.life
        if life is None:
            if self._state in (EngineState.LOST, EngineState.STOPPED):
                raise EngineDeadError(self._reason)
            raise EngineNotReadyError("the engine is being started again; ask again when GET /readyz says so")
        return life

    def _move(self, state: EngineState, reason: str = "") -> None:
        self._state, self._reason, self._since = state, reason or self._reason, time.monotonic()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _keep_alive(self) -> None:
        try:
            await self._restart_for_ever()
        except Exception:  # the background boundary: without its supervisor the engine must not go on
            logger.exception("the supervisor of the engine failed")
            self._lose("the supervisor of the engine failed")

    async def _restart_for_ever(self) -> None:
        while self._life is not None:
            ending = await self._life.wait_over()
            noticed = time.monotonic()
            if self._final:
                self._lose(f"{ending.reason} while the server was shutting down")
                return
            logger.error("the engine %s: %s", ending.cause, ending.reason)
            self._move(EngineState.RESTARTING, f"the last one {ending.cause}")
            dead, self._life = self._life, None
            await dead.end()
            del dead  # with all that its engine holds, before the next one takes its place
            if not await self._replace(ending):
                return
            seconds = time.monotonic() - noticed
            logger.info("the engine is ready again after %.1f s", seconds)
            if self._metrics is not None:
                self._metrics.engine_restart_seconds.observe(seconds)
            self._on_ready()

    async def _replace(self, ending: Ending) -> bool:
        """Start engines until one is ready; False when there were too many."""
        while True:
            delay = self._backoff.next_delay()
            if delay is None or self._final:
                self._lose(self._explain(ending))
                return False
            if self._metrics is not None:
                self._metrics.engine_restarts.labels(ending.cause).inc()
            if delay:
                logger.warning("the next start of the engine is in %g s", delay)
                await asyncio.sleep(delay)
            failed = await self._begin()
            if failed is None:
                return True
            ending = failed
            logger.error("the engine could not be started again: %s", ending.reason)
            self._move(EngineState.RESTARTING, "the last start failed")

    async def _begin(self) -> Ending | None:
        """One start, with everything the engine held before; the reason when it failed."""
        engine = self._factory()
        try:
            await engine.start()
        except asyncio.CancelledError:
            await asyncio.shield(engine.kill())
            raise
        except Exception as error:  # the background boundary: whatever it was, the next start may succeed
            if not isinstance(error, HotswapError):
                logger.exception("the start of the engine failed")
            with contextlib.suppress(Exception):
                await engine.kill()
            return Ending("start_failed", str(error) or type(error).__name__)
        life = self._life = EngineLife(engine, self._rules.watch)
        self._move(EngineState.RESTORING)
        try:
            failed = await self._give_back(life)
        except asyncio.CancelledError:
            raise  # `stop` closes the life
        except Exception as error:  # the background boundary: without its adapters an engine is not ready
            logger.exception("the engine's adapters could not be brought back")
            failed = Ending("start_failed", f"its adapters could not be brought back: {error}")
        if failed is not None:
            self._life = None
            await life.end()
            return failed
        self._move(EngineState.READY)
        return None

    async def _give_back(self, life: EngineLife) -> Ending | None:
        """Let `restore` work on the fresh engine; the reason when that engine did not survive it."""
        if self._restore is None:
            return None
        restoring = asyncio.ensure_future(self._restore())
        over = asyncio.ensure_future(life.wait_over())
        try:
            await asyncio.wait({restoring, over}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                await asyncio.wait({restoring}, timeout=_RESTORE_GRACE_SECONDS)
                return over.result()
            restoring.result()
            return None
        finally:
            over.cancel()
            if not restoring.done():
                restoring.cancel()
            await asyncio.wait({restoring})
            if not restoring.cancelled():
                restoring.exception()

    def _explain(self, ending: Ending) -> str:
        rules = self._rules.restarts
        if self._final:
            return f"{ending.reason}, and the server is shutting down"
        if rules.max_restarts == 0:
            return f"{ending.reason}; it is not started again (--engine-max-restarts 0)"
        return (
            f"{ending.reason}; it was started again {rules.max_restarts} times within "
            f"{rules.window_seconds:g} s, and that is the limit (--engine-max-restarts, "
            "--engine-restart-window-seconds)"
        )

    def _lose(self, reason: str) -> None:
        self._move(EngineState.LOST, reason)
        if not self._final:
            logger.error("%s; the server ends", reason)
            self._on_lost()
