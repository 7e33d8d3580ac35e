"""Minutes dealt out to runs: all windows are as long as the time that is left allows, whatever has passed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.load.errors import LoadOptionError

LEAST_SECONDS = 4.0  # of a window; a shorter one measures hardly anything
MOST_SECONDS = 120.0
FIRST_GUESS_SECONDS = (
    7.0  # that a run takes besides its warm-up and window: a process that starts, the last answers
)
REPORT_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Need:
    """What a part takes: `runs`, each of a warm-up and a window in windows of a plain run."""

    runs: int
    warmup: float = 0.2
    window: float = 1.0
    each_concurrency: bool = False  # `runs` are of each closed loop that was asked for

    def over(self, concurrency: int) -> Need:
        """With so many closed loops."""
        return (
            replace(self, runs=self.runs * concurrency, each_concurrency=False)
            if self.each_concurrency
            else self
        )

    @property
    def windows(self) -> float:
        """All its runs."""
        return self.runs * (self.warmup + self.window)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of each run of one part, in seconds."""

    warmup_seconds: float
    seconds: float


class Budget:
    """Seconds until all has to be over. `clock` is monotonic."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + 60.0 * minutes
        self._besides: list[float] = []  # seconds a run took besides warm-up and window

    @property
    def left_seconds(self) -> float:
        """Until the end; never below 0."""
        return max(0.0, self._end - self._clock())

    def lengths(self, part: Need, later: Sequence[Need] = ()) -> Lengths | None:
        """How long the runs of `part` may be when `later` parts follow; None when there is no time for it.

        When there is not enough for all, the part has the shortest windows, and later ones what it leaves.
        """
        window = self._window((part, *later))
        if window < LEAST_SECONDS and self._window((part,)) >= LEAST_SECONDS:
            window = LEAST_SECONDS
        if window < LEAST_SECONDS:
            return None
        window = min(window, MOST_SECONDS)
        return Lengths(round(window * part.warmup, 1), round(window * part.window, 1))

    def _window(self, needs: Sequence[Need]) -> float:
        besides = sum(need.runs for need in needs) * self._besides_seconds
        return (self.left_seconds - REPORT_SECONDS - besides) / sum(need.windows for need in needs)

    def took(self, seconds: float, part: Need, lengths: Lengths) -> None:
        """A part is over: what it took besides its windows is expected of those that follow."""
        planned = part.runs * (lengths.warmup_seconds + lengths.seconds)
        self._besides += [max(0.0, seconds - planned) / part.runs] * part.runs

    @property
    def _besides_seconds(self) -> float:
        return sum(self._besides) / len(self._besides) if self._besides else FIRST_GUESS_SECONDS


def check_minutes(minutes: float, needs: Sequence[Need], *, start_seconds: float) -> None:
    """Raises LoadOptionError when so many minutes are too few for all parts and a start."""
    runs = sum(need.runs for need in needs)
    least = start_seconds + REPORT_SECONDS + runs * FIRST_GUESS_SECONDS
    least += LEAST_SECONDS * sum(need.windows for need in needs)
    if 60.0 * minutes < least:
        raise LoadOptionError(
            f"--minutes {minutes:g} is too short for {runs} runs; give {least / 60 + 0.05:.1f} or more, or "
            "fewer --parts"
        )
