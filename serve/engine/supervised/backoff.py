"""How soon a lost engine is started again, and when no more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartRules:
    """At most `max_restarts` within `window_seconds`; the first at once, each further one twice as late."""

    max_restarts: int = 5
    window_seconds: float = 600.0
    first_delay_seconds: float = 1.0
    max_delay_seconds: float = 30.0


class Backoff:
    """Counts the restarts of one engine."""

    def __init__(self, rules: RestartRules, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rules = rules
        self._clock = clock
        self._restarts: deque[float] = deque()

    @property
    def recent(self) -> int:
        """Restarts within the window."""
        oldest = self._clock() - self.rules.window_seconds
        while self._restarts and self._restarts[0] <= oldest:
            self._restarts.popleft()
        return len(self._restarts)

    def next_delay(self) -> float | None:
        """Count one more restart; returns the seconds to wait before it, None when it would be one too many."""
        before = self.recent
        if before >= self.rules.max_restarts:
            return None
        self._restarts.append(self._clock())
        if before == 0:
            return 0.0
        return float(min(self.rules.first_delay_seconds * 2 ** (before - 1), self.rules.max_delay_seconds))
