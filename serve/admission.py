"""The bounded waiting room in front of the engine.

The engine gets at most `max_running` sequences at once; further requests wait here in order of arrival,
bounded by count and by prompt tokens, and whoever comes beyond the bound is told when to come back.
A request that leaves while it waits never reaches the engine.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from serve.errors import DrainingError, QueueFullError

MIN_RETRY_SECONDS = 1
MAX_RETRY_SECONDS = 60
# Weight of the newest finished request in the running mean of the service rate.
_RATE_WEIGHT = 0.2


@dataclass(frozen=True, slots=True)
class Flow:
    """Whose request it is: flows share the engine by weight."""

    tenant: str = ""
    adapter: str | None = None  # alias; None: the base
    weight: float = 1.0


@dataclass(slots=True)
class _Waiting:
    sequences: int
    prompt_tokens: int
    turn: asyncio.Future[None]


class Admission:
    """Counts who runs and who waits. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        max_running: int,
        max_queued_requests: int,
        max_queued_tokens: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_running = max_running
        self.max_queued_requests = max_queued_requests
        self.max_queued_tokens = max_queued_tokens
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._queued_tokens = 0
        self._running = 0
        self._requests = 0
        self._holds = 0
        self._draining_retry_seconds: int | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_finish: float | None = None
        self._seconds_per_finish: float | None = None

    @property
    def running(self) -> int:
        """Sequences in the engine."""
        return self._running

    @property
    def queued_requests(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens that wait."""
        return self._queued_tokens

    @property
    def requests(self) -> int:
        """Requests admitted and not finished: running and waiting."""
        return self._requests

    @property
    def draining(self) -> bool:
        """True once no new work is taken."""
        return self._draining_retry_seconds is not None

    def drain(self, retry_after_seconds: int) -> None:
        """Take no new work from now on."""
        self._draining_retry_seconds = retry_after_seconds

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hand the engine no new requests for the length of the block; they wait within the same bounds."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._wake()

    async def wait_idle(self) -> None:
        """Return when nothing runs and nothing waits."""
        await self._idle.wait()

    def check_open(self, *, requests: int = 1, sequences: int = 1, prompt_tokens: int = 0) -> None:
        """Refuse `requests` of `sequences` each early, before the prompt is tokenised.

        Raises DrainingError, QueueFullError.
        """
        if self._draining_retry_seconds is not None:
            raise DrainingError(
                "the server is shutting down and takes no new requests; send this one again",
                retry_after_seconds=self._draining_retry_seconds,
            )
        waiting = len(self._queue) + max(0, requests - self._free_places(sequences))
        if waiting > self.max_queued_requests:
            raise self._full(f"{len(self._queue)} requests wait (at most {self.max_queued_requests})")
        if self._queue and self._queued_tokens + prompt_tokens > self.max_queued_tokens:
            raise self._full(f"{self._queued_tokens} prompt tokens wait (at most {self.max_queued_tokens})")

    @asynccontextmanager
    async def slot(self, *, sequences: int, prompt_tokens: int, flow: Flow = Flow()) -> AsyncIterator[float]:
        """Hold a place for `sequences` in the engine; yields the seconds spent waiting.

        A request wider than `max_running` gets the engine to itself.
        Raises DrainingError, QueueFullError.
        """
        del flow
        self.check_open(sequences=sequences, prompt_tokens=prompt_tokens)
        arrived = self._clock()
        self._requests += 1
        self._idle.clear()
        try:
            if self._queue or not self._fits(sequences):
                await self._wait(sequences, prompt_tokens)
            else:
                self._running += sequences
            try:
                yield self._clock() - arrived
            finally:
                self._running -= sequences
                self._note_finish()
                self._wake()
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._idle.set()

    def _free_places(self, sequences: int) -> int:
        """How many requests of that width could start now."""
        if self._queue or not self._fits(sequences):
            return 0
        return max(1, (self.max_running - self._running) // sequences)

    def _fits(self, sequences: int) -> bool:
        if self._holds:
            return False
        return self._running == 0 or self._running + sequences <= self.max_running

    async def _wait(self, sequences: int, prompt_tokens: int) -> None:
        entry = _Waiting(sequences, prompt_tokens, asyncio.get_running_loop().create_future())
        self._queue.append(entry)
        self._queued_tokens += prompt_tokens
        try:
            await entry.turn
        except asyncio.CancelledError:
            if not entry.turn.cancelled():
                self._running -= sequences  # the turn came in the same step as the cancellation
            elif entry in self._queue:
                self._leave(entry)
            self._wake()
            raise

    def _leave(self, entry: _Waiting) -> None:
        self._queue.remove(entry)
        self._queued_tokens -= entry.prompt_tokens

    def _wake(self) -> None:
        while self._queue and self._fits(self._queue[0].sequences):
            entry = self._queue[0]
            self._leave(entry)
            if entry.turn.cancelled():
                continue  # its task was cancelled and has not run since
            self._running += entry.sequences
            entry.turn.set_result(None)

    def _note_finish(self) -> None:
        now = self._clock()
        if self._last_finish is not None and self._queue:
            gap = now - self._last_finish
            mean = self._seconds_per_finish
            self._seconds_per_finish = gap if mean is None else mean + _RATE_WEIGHT * (gap - mean)
        self._last_finish = now

    def _full(self, why: str) -> QueueFullError:
        per_finish = self._seconds_per_finish if self._seconds_per_finish is not None else 1.0
        seconds = math.ceil(per_finish * max(1, len(self._queue)))
        retry = min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, seconds))
        return QueueFullError(f"the queue is full: {why}; try again in {retry} s", retry_after_seconds=retry)
