"""Adds up exclusive time by label: what a call spends in calls that have a label of their own is theirs."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class Stopwatch:
    """One thread's labelled calls. A call costs two readings of two clocks, about a microsecond."""

    def __init__(self) -> None:
        self._open: list[list[float]] = []  # wall and thread seconds of the calls inside each open call
        self.clear()

    def clear(self) -> None:
        """Forget what was added up."""
        self.wall_seconds: dict[str, float] = defaultdict(float)
        self.thread_seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its own time added to `label`."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            inside = [0.0, 0.0]
            self._open.append(inside)
            wall, thread = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                wall, thread = time.perf_counter() - wall, time.thread_time() - thread
                self._open.pop()
                self.calls[label] += 1
                self.wall_seconds[label] += wall - inside[0]
                self.thread_seconds[label] += thread - inside[1]
                if self._open:
                    self._open[-1][0] += wall
                    self._open[-1][1] += thread

        return call
