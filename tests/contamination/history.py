"""What may answer to a name, and when: written by whoever moves names, read by whoever judges answers.

A verb takes time, and its effect falls somewhere between its sending and its answer. So while it runs both what
was before and what comes after may answer; once it is answered, only what comes after. A version is leased
between the sending of a request and the first byte of its answer: an answer is right if its version was allowed at
some moment in between.
"""

from __future__ import annotations

import bisect
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.contamination.standing import NOTHING

KEPT_SECONDS = 600.0  # no request takes longer; what ended before that is forgotten

# What a request may be told while the engine is gone: it had begun to answer, or it came in between.
KILLED = ("engine_dead", "engine_not_ready", "adapter_unavailable", "aborted")

Answerers = frozenset[str]  # versions, or NOTHING


@dataclass(slots=True)
class Epoch:
    """Who may answer, from the moment a verb was sent until the next one was answered."""

    answerers: Answerers
    begun: float
    ended: float = float("inf")


@dataclass(slots=True)
class Excuse:
    """Errors that are allowed for requests that ran at some moment between `begun` and `ended`."""

    codes: frozenset[str]
    begun: float
    ended: float = float("inf")
    name: str | None = None  # None: any request


@dataclass
class Change:
    """A verb that is running. Without a word about how it went, either may be so."""

    after: dict[str, Answerers]
    failed: bool = False

    def fail(self) -> None:
        """It did nothing: what was before still is."""
        self.failed = True


@dataclass
class History:
    """Seconds are those of time.perf_counter."""

    excuses: list[Excuse] = field(default_factory=list)
    _kills: list[float] = field(default_factory=list)
    _epochs: defaultdict[str, list[Epoch]] = field(
        default_factory=lambda: defaultdict(lambda: [Epoch(frozenset({NOTHING}), float("-inf"))])
    )

    @contextmanager
    def change(self, after: dict[str, Answerers]) -> Iterator[Change]:
        """A verb after which `after` answers to these names, running for the length of the block."""
        change, asked = Change(after), time.perf_counter()
        opened = {name: Epoch(answerers, asked) for name, answerers in after.items()}
        for name, epoch in opened.items():
            self._epochs[name].append(epoch)
        try:
            yield change
        finally:
            done = time.perf_counter()
            for name, epoch in opened.items():
                if change.failed:
                    epoch.ended = done
                    self._epochs[name].remove(epoch)
                else:
                    for earlier in self._epochs[name]:
                        if earlier is not epoch:
                            earlier.ended = min(earlier.ended, done)
            self._forget(done - KEPT_SECONDS)

    @contextmanager
    def excuse(self, *codes: str, name: str | None = None) -> Iterator[None]:
        """Allow these errors while the block runs."""
        excuse = Excuse(frozenset(codes), time.perf_counter(), name=name)
        self.excuses.append(excuse)
        try:
            yield
        finally:
            excuse.ended = time.perf_counter()

    def allowed(self, name: str, begin: float, end: float) -> Answerers:
        """All that may have answered to a name at some moment between `begin` and `end`."""
        return frozenset().union(
            *(epoch.answerers for epoch in self._epochs[name] if epoch.begun <= end and epoch.ended >= begin)
        )

    def excused(self, code: str, name: str | None, begin: float, end: float) -> bool:
        """Whether an error is allowed for a request on `name` that ran from `begin` to `end`."""
        return any(
            code in excuse.codes
            and excuse.name in (None, name)
            and excuse.begun <= end
            and excuse.ended >= begin
            for excuse in self.excuses
        )

    @contextmanager
    def kill(self) -> Iterator[None]:
        """The engine is killed at the beginning of the block and back at its end."""
        with self.excuse(*KILLED):
            self._kills.append(time.perf_counter())
            yield
            self._kills[-1] = time.perf_counter()

    def killed_lately(self, seconds: float) -> bool:
        """Whether a verb that took at most so long, and ended now, may have met an engine that was killed."""
        return any(moment >= time.perf_counter() - seconds for moment in self._kills)

    def now(self, name: str) -> Answerers:
        """What may answer at this moment."""
        moment = time.perf_counter()
        return self.allowed(name, moment, moment)

    def _forget(self, before: float) -> None:
        for epochs in self._epochs.values():
            keep = [epoch for epoch in epochs if epoch.ended >= before]
            del epochs[: len(epochs) - len(keep)]
        gone = bisect.bisect_left([excuse.ended for excuse in self.excuses], before)
        del self.excuses[:gone]
