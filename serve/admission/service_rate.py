"""How many requests finish in a second while others wait: what a queue's length means in seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

# Answers of one batch end together and then none for a while: a rate is told from no less than this.
MIN_FINISHES = 32
# ... and from no more than the newest so many seconds in which somebody waited.
WINDOW_SECONDS = 30.0
_MAX_FINISHES = 4096


class ServiceRate:
    """Belongs to one event loop. Time in which nobody waits says nothing about the engine, and is left out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None  # the last finish, or when somebody began to wait
        self._gaps: deque[float] = deque()
        self._total = 0.0

    def wait(self) -> None:
        """Somebody waits from now on, if nobody did."""
        if self._since is None:
            self._since = self._clock()

    def idle(self) -> None:
        """Nobody waits any more."""
        self._since = None

    def finish(self) -> None:
        """A request that ran has ended."""
        if self._since is not None:
            now = self._clock()
            self._gaps.append(now - self._since)
            self._total += now - self._since
            self._since = now
            while len(self._gaps) > MIN_FINISHES and (
                self._total > WINDOW_SECONDS or len(self._gaps) > _MAX_FINISHES
            ):
                self._total -= self._gaps.popleft()

    @property
    def seconds_per_finish(self) -> float | None:
        """Mean of what is known; None before the first finish with somebody waiting."""
        return max(0.0, self._total) / len(self._gaps) if self._gaps else None

    def requests_in(self, seconds: float) -> int | None:
        """How many finish in so many seconds; None while too few are known to tell."""
        if len(self._gaps) < MIN_FINISHES:
            return None
        return int(seconds * len(self._gaps) / self._total) if self._total > 0 else None
