"""The learning rate over a run, as a factor of its peak.

The course is a function of progress, not of steps: the larger of the share of steps done and the share of time
used. Without a time limit that is the usual schedule by steps. With one, the rate reaches its end when time is up,
however fast the machine turns out to be, and slows down with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["cosine", "linear", "constant", "plateau"]


def rate_factor(schedule: Schedule, *, progress: float, warmup: float, plateau: float = 1.0) -> float:
    """Factor of the peak rate at `progress` in [0, 1]: up to 1 over the share `warmup`, then by `schedule`.

    cosine and linear end at 0; constant stays; plateau stays at `plateau`, which evaluations lower.
    """
    if progress < warmup:
        return progress / warmup
    rest = min(1.0, (progress - warmup) / (1.0 - warmup))
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * rest))
    if schedule == "linear":
        return 1.0 - rest
    return plateau if schedule == "plateau" else 1.0


@dataclass(slots=True)
class RunClock:
    """How far a run is. Times in seconds, on the clock `now`; `before_seconds` were used by earlier processes.

    `budget_seconds` is for training itself: what the end of the run needs is taken off before.
    """

    total_steps: int
    budget_seconds: float | None = None
    before_seconds: float = 0.0
    now: Callable[[], float] = time.monotonic
    started_at: float = 0.0
    elapsed_seconds: float = 0.0

    def start(self) -> None:
        """Begin to count here."""
        self.started_at = self.now()
        self.elapsed_seconds = self.before_seconds

    def read(self) -> float:
        """Seconds used so far, in all processes that worked on this run one after the other."""
        self.elapsed_seconds = self.before_seconds + self.now() - self.started_at
        return self.elapsed_seconds

    def progress(self, step: int) -> float:
        """Share of the run that is done after `step` steps, as of the last `read`."""
        by_steps = (step / self.total_steps) if self.total_steps else 1.0
        by_time = self.elapsed_seconds / self.budget_seconds if self.budget_seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def is_over(self) -> bool:
        """Whether the time is used up, as of the last `read`."""
        return self.budget_seconds is not None and self.elapsed_seconds >= self.budget_seconds
