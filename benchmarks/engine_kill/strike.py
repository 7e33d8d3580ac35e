"""The signal to the engine's process while the load runs, and when readiness went and came back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from benchmarks.engine_kill.plan import Plan
from benchmarks.engine_kill.readiness import Readiness
from benchmarks.errors import BenchmarkError


@dataclass(frozen=True, slots=True)
class StrikeResult:
    """What was seen of it."""

    struck_seconds: float  # from the beginning of the load
    off_seconds: float  # from the signal until /readyz said so
    why: str
    ready_seconds: float  # from the signal, or from the one that let it go on


class Strike:
    """Kills a process, or stops it for `stop_seconds`, once the load has gone on for as long as the plan says."""

    def __init__(self, core: psutil.Process, url: str, plan: Plan, stop_seconds: float) -> None:
        self._core, self._url, self._plan, self._stop_seconds = core, url, plan, stop_seconds
        self._over = threading.Event()
        self._result: StrikeResult | None = None

    @property
    def result(self) -> StrikeResult:
        """What came of it. Raises BenchmarkError before its end."""
        if self._result is None:
            raise BenchmarkError("the engine's process was not struck")
        return self._result

    @contextmanager
    def running(self, start_at_seconds: float) -> Iterator[tuple[()]]:
        """Strike beside the block, which begins its load at that moment by `time.monotonic`.

        When the block has ended the gateway is waited for, as long as the plan allows. Raises BenchmarkError.
        """
        with ThreadPoolExecutor(1) as pool, Readiness(self._url) as readiness:
            struck = pool.submit(self._strike, start_at_seconds, readiness)
            try:
                yield ()
                self._result = struck.result()
            finally:
                self._over.set()

    def _strike(self, start_at_seconds: float, readiness: Readiness) -> StrikeResult:
        limit = self._plan.back_seconds
        self._wait(start_at_seconds + self._plan.before_seconds - time.monotonic())
        struck = time.monotonic()
        self._core.send_signal(signal.SIGSTOP if self._stop_seconds else signal.SIGKILL)
        back = struck
        if self._stop_seconds:
            try:
                self._wait(self._stop_seconds)
            finally:
                back = time.monotonic()
                self._core.send_signal(signal.SIGCONT)
        off, why = readiness.wait(False, after_seconds=struck, limit_seconds=limit)
        ready, _ = readiness.wait(True, after_seconds=max(off, back), limit_seconds=limit)
        return StrikeResult(struck - start_at_seconds, off - struck, why, ready - back)

    def _wait(self, seconds: float) -> None:
        if self._over.wait(max(0.0, seconds)):
            raise BenchmarkError("the load ended before the engine's process was struck")
