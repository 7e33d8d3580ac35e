"""What a version's answers over the last minutes say about it, against those of another version.

A canary is looked at again after each of its answers, and whoever looks often sees chance often. So nothing here
speaks before the difference is three standard deviations beyond its bound (by chance 1 in 740 at one look).

- Errors: the lower end of Wilson's interval must be above the bound, and the lower end of Newcombe's interval of
  the difference from the stable version above 0, so that an engine that fails everybody takes no canary back. Both
  hold for few answers and for rates near 0 and 1: 1 error in 2 says nothing, 4 in 4 do.
- Time to the first token: Mann and Whitney's rank test of the canary's times against the stable version's times
  the bound. It asks whether the canary is typically slower than that, whatever the shape of the times: an answer
  that took a minute, which moves a mean or the p95 of twenty, counts as one.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapters.evaluation.interval import wilson

# Standard deviations.
CERTAINTY = 3.0
# Answers of a version that are remembered, however long the window.
MAX_ANSWERS = 4096
# The newest times that the rank test looks at; fewer than MIN_TIMES on either side say nothing.
MAX_TIMES = 256
MIN_TIMES = 10


@dataclass(frozen=True, slots=True)
class _Answer:
    at: float
    failed: bool
    ttft_seconds: float | None


class Window:
    """A version's answers of the last `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock = clock
        self._answers: deque[_Answer] = deque()
        self._failures = 0

    def add(self, *, failed: bool, ttft_seconds: float | None) -> None:
        """One more answer, now."""
        self._answers.append(_Answer(self._clock(), failed, ttft_seconds))
        self._failures += failed
        if len(self._answers) > MAX_ANSWERS:
            self._forget()

    @property
    def answers(self) -> int:
        """How many there are."""
        self._prune()
        return len(self._answers)

    @property
    def failures(self) -> int:
        """How many of them failed by the server's fault."""
        self._prune()
        return self._failures

    @property
    def error_rate(self) -> float:
        """Failures over answers; 0 without answers."""
        return self.failures / max(1, self.answers)

    def times(self) -> list[float]:
        """Seconds to the first token, of the newest answers that have it, at most MAX_TIMES."""
        self._prune()
        found: list[float] = []
        for answer in reversed(self._answers):
            if answer.ttft_seconds is not None and not answer.failed:
                found.append(answer.ttft_seconds)
                if len(found) == MAX_TIMES:
                    break
        return found

    def _prune(self) -> None:
        oldest = self._clock() - self.seconds
        while self._answers and self._answers[0].at < oldest:
            self._forget()

    def _forget(self) -> None:
        self._failures -= self._answers.popleft().failed


def fails_more(canary: Window, stable: Window, bound: float) -> bool:
    """Whether the canary's error rate is above `bound` and above the stable version's, beyond chance."""
    own = wilson(canary.failures, canary.answers, quantile=CERTAINTY)
    if own is None or own[0] <= bound:
        return False
    other = wilson(stable.failures, stable.answers, quantile=CERTAINTY)
    if other is None:
        return True
    # Newcombe's hybrid score interval, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I
    difference = canary.error_rate - stable.error_rate
    return difference > math.hypot(canary.error_rate - own[0], other[1] - stable.error_rate)


def is_slower(canary: Sequence[float], stable: Sequence[float], ratio: float) -> bool:
    """Whether the canary's times are typically more than `ratio` times the stable version's, beyond chance."""
    if min(len(canary), len(stable)) < MIN_TIMES:
        return False
    return rank_score(canary, [seconds * ratio for seconds in stable]) > CERTAINTY


def rank_score(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Mann and Whitney's U as standard deviations from its mean; positive where ours are larger.

    Normal approximation without the correction for ties, which makes the score of tied values smaller.
    """
    ordered = sorted(theirs)
    wins = sum((bisect.bisect_left(ordered, x) + bisect.bisect_right(ordered, x)) / 2 for x in ours)
    pairs = len(ours) * len(theirs)
    return (wins - pairs / 2) / math.sqrt(pairs * (len(ours) + len(theirs) + 1) / 12)


def typical_ratio(canary: Sequence[float], stable: Sequence[float]) -> float | None:
    """The canary's median time over the stable version's; None where one of them has none."""
    if not canary or not stable:
        return None
    middle = statistics.median(stable)
    return statistics.median(canary) / middle if middle > 0 else None
