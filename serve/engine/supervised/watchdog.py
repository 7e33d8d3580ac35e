"""Sees that an engine has died, and that one stands still.

Death is told by the engine itself. A standing engine says nothing, so it is asked: a heartbeat is answered between
two steps. Every output counts as an answer too, and an engine that puts them out is not asked. A long step answers
nothing either, but it computes: while the engine's processes use the processor or wait for a disk, or are at an
adapter that they were just given, silence is taken for work, up to `BUSY_FACTOR` times the hang limit. A process
that was stopped (SIGSTOP, a debugger) neither answers nor works, and the kernel says so.

Time in which this process itself was not running (stopped, suspended, starved) is not held against the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from serve.engine.protocol import MortalEngine
from serve.errors import EngineError

logger = logging.getLogger("hotswap.engine")

POLL_SECONDS = 0.2
BEAT_SECONDS = 1.0
# A stopped process is sure not to answer: no need to wait for the whole stall limit.
STOPPED_SECONDS = 2.0
# Of one processor, over a second: less is waiting, even where many processes share it.
COMPUTING_SHARE = 0.05
BUSY_FACTOR = 10
_VITALS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WatchRules:
    """How long an engine may be silent."""

    stall_seconds: float = 15.0  # then it takes no new work
    hang_seconds: float = 60.0  # then it is ended
    poll_seconds: float = POLL_SECONDS
    beat_seconds: float = BEAT_SECONDS


@dataclass(frozen=True, slots=True)
class Ending:
    """Why an engine is to be replaced."""

    cause: str  # "died", "hung" or "start_failed"
    reason: str


class Vitals:
    """What the kernel knows of an engine's processes."""

    def __init__(self, process_ids: Sequence[int]) -> None:
        self._processes = []
        for pid in process_ids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._processes.append(psutil.Process(pid))
        self._cpu_seconds = self._read_cpu()
        self._read_at = time.monotonic()
        self._computing = False

    @property
    def stopped(self) -> bool:
        """True while any of them is stopped by a signal or a debugger."""
        return self._any(psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)

    @property
    def working(self) -> bool:
        """True when they used the processor over the last second or more, or wait for a disk now."""
        return self._is_computing() or self._any(psutil.STATUS_DISK_SLEEP)

    def _any(self, *statuses: str) -> bool:
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() in statuses:
                    return True
        return False

    def _is_computing(self) -> bool:
        now = time.monotonic()
        if now - self._read_at >= _VITALS_SECONDS:
            used = self._read_cpu()
            self._computing = (used - self._cpu_seconds) / (now - self._read_at) >= COMPUTING_SHARE
            self._cpu_seconds, self._read_at = used, now
        return self._computing

    def _read_cpu(self) -> float:
        seconds = 0.0
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds


class Watchdog:
    """Watches one engine from its start to its end."""

    def __init__(
        self, engine: MortalEngine, rules: WatchRules, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._clock = clock
        self._vitals = Vitals(engine.process_ids)
        self._alarm = asyncio.Event()
        self._heard = False
        self._heard_at = -math.inf
        self._tasks = 0  # that it was given and that may take long
        self._silent_seconds = 0.0  # since the last sign of life
        self._idle_seconds = 0.0  # of that, since it last worked
        self._stopped_seconds = 0.0

    def hear(self) -> None:
        """The engine gave a sign of life."""
        self._heard = True
        self._heard_at = self._clock()

    @contextlib.contextmanager
    def task(self) -> Iterator[None]:
        """For the length of the block silence is work: the engine was given something that may take long."""
        self._tasks += 1
        try:
            yield
        finally:
            self._tasks -= 1

    def alarm(self) -> None:
        """Somebody was told that the engine is dead: look now."""
        self._alarm.set()

    @property
    def alarmed(self) -> bool:
        """True once somebody was told that the engine is dead."""
        return self._alarm.is_set()

    @property
    def silent_seconds(self) -> float:
        """Seconds without a sign of life."""
        return self._silent_seconds

    @property
    def stalled(self) -> bool:
        """True while the engine stands still."""
        limit = self._rules.stall_seconds
        return self._idle_seconds >= limit or self._stopped_seconds >= min(STOPPED_SECONDS, limit)

    async def run(self) -> Ending:
        """Return when the engine is dead or has stood still for too long."""
        beat = asyncio.create_task(self._listen(), name="engine heartbeat")
        last = self._clock()
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rules.poll_seconds):
                        await self._alarm.wait()
                now = self._clock()
                ending = await self._look(min(now - last, 2 * self._rules.poll_seconds))
                if ending is not None:
                    return ending
                last = now
        finally:
            beat.cancel()

    async def _listen(self) -> None:
        with contextlib.suppress(EngineError):  # of death `_look` hears as well
            while True:
                due = self._heard_at + self._rules.beat_seconds - self._clock()
                if due <= 0:
                    await self._engine.heartbeat()
                    self.hear()
                    due = self._rules.beat_seconds
                await asyncio.sleep(due)

    async def _look(self, seconds: float) -> Ending | None:
        """Judge the last `seconds`."""
        try:
            await self._engine.check_health()
        except EngineError as error:
            return Ending("died", str(error))
        if self._alarm.is_set():
            return Ending("died", "a request was told that the engine is dead")
        was_stalled = self.stalled
        if self._heard:
            self._heard = False
            self._silent_seconds = self._idle_seconds = self._stopped_seconds = 0.0
            if was_stalled:
                logger.warning("the engine answers again")
            return None
        self._silent_seconds += seconds
        if self._silent_seconds < min(self._rules.beat_seconds * 1.5, self._rules.stall_seconds):
            return None  # the next heartbeat is not due yet
        stopped = self._vitals.stopped
        works = not stopped and (self._tasks > 0 or self._vitals.working)
        self._stopped_seconds = self._stopped_seconds + seconds if stopped else 0.0
        self._idle_seconds = 0.0 if works else self._idle_seconds + seconds
        if self.stalled and not was_stalled:
            logger.warning(
                "the engine has given no sign of life for %.1f s%s: no new work is taken",
                self._silent_seconds,
                ", its process is stopped" if self._stopped_seconds else "",
            )
        hang = self._rules.hang_seconds
        if self._idle_seconds >= hang or self._silent_seconds >= BUSY_FACTOR * hang:
            return Ending("hung", f"the engine gave no sign of life for {self._silent_seconds:.0f} s")
        return None
