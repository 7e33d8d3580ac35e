"""The bounded waiting room in front of the engine.

The engine gets at most `max_running` sequences at once; further requests wait here, bounded by count and by
prompt tokens. Whose turn it is, `fair_queue.py` says; beyond the bound whoever has most waiting is told when to
come back, so that one who floods the queue takes no place from the others. A request that leaves while it waits
never reaches the engine.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from serve.admission.fair_queue import FairQueue, Flow, Measure, Waiting
from serve.admission.service_rate import ServiceRate
from serve.errors import DrainingError, QueueFullError, QueueTimeoutError

MIN_RETRY_SECONDS = 1
MAX_RETRY_SECONDS = 60


DEFAULT_FLOW = Flow()


class Admission:
    """Counts who runs and who waits. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        max_running: int,
        max_queued_requests: int,
        max_queued_tokens: int,
        queue_seconds: float | None = None,
        max_wait_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`queue_seconds` is how long a request may wait; None: as long as the client does.

        `max_wait_seconds` bounds the queue by how long it is foreseen to take, besides the two other bounds.
        """
        self.max_running = max_running
        self.max_queued_requests = max_queued_requests
        self.max_queued_tokens = max_queued_tokens
        self.queue_seconds = queue_seconds
        self.max_wait_seconds = max_wait_seconds
        self._clock = clock
        self._queue = FairQueue()
        self._running = 0
        self._requests = 0
        self._holds = 0
        self._draining_retry_seconds: int | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._rate = ServiceRate(clock)

    @property
    def running(self) -> int:
        """Sequences in the engine."""
        return self._running

    @property
    def queued_requests(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def queue_bound(self) -> int:
        """How many requests may wait now."""
        if self.max_wait_seconds is None:
            return self.max_queued_requests
        in_time = self._rate.requests_in(self.max_wait_seconds)
        return self.max_queued_requests if in_time is None else min(self.max_queued_requests, max(1, in_time))

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens that wait."""
        return self._queue.tokens

    @property
    def queue_age_seconds(self) -> float:
        """How long whoever waits longest has waited."""
        return max((self._clock() - entry.since for entry in self._queue), default=0.0)

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

    def check_open(
        self, *, requests: int = 1, sequences: int = 1, prompt_tokens: int = 0, flow: Flow = DEFAULT_FLOW
    ) -> None:
        """Refuse `requests` of `sequences` each early, before the prompt is tokenised.

        Raises DrainingError, QueueFullError.
        """
        if self._draining_retry_seconds is not None:
            raise DrainingError(
                "the server is shutting down and takes no new requests; send this one again",
                retry_after_seconds=self._draining_retry_seconds,
            )
        new = max(0, requests - self._free_places(sequences))
        if len(self._queue) + new > self.queue_bound and not self._queue.has_longer(flow, "requests", new):
            raise self._full("requests")
        too_long = self._queue and self._queue.tokens + prompt_tokens > self.max_queued_tokens
        if too_long and not self._queue.has_longer(flow, "tokens", prompt_tokens):
            raise self._full("tokens")

    @asynccontextmanager
    async def slot(
        self, *, sequences: int, prompt_tokens: int, answer_tokens: int = 0, flow: Flow = DEFAULT_FLOW
    ) -> AsyncIterator[float]:
        """Hold a place for `sequences` in the engine; yields the seconds spent waiting.

        The flow pays for the prompt and for `answer_tokens`, the most that is to be generated; see `refund`.
        A request wider than `max_running` gets the engine to itself.
        Raises DrainingError, QueueFullError, QueueTimeoutError.
        """
        self.check_open(sequences=sequences, prompt_tokens=prompt_tokens, flow=flow)
        arrived = self._clock()
        self._requests += 1
        self._idle.clear()
        work = prompt_tokens + answer_tokens
        try:
            if self._queue or not self._fits(sequences):
                await self._wait(sequences, prompt_tokens, work, flow)
            else:
                self._running += sequences
                self._queue.charge(flow, work)
            try:
                yield self._clock() - arrived
            finally:
                self._running -= sequences
                self._rate.finish()
                self._wake()
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._queue.forget()
                self._idle.set()

    def refund(self, flow: Flow, tokens: int) -> None:
        """Give a flow back what was charged for an answer and not generated."""
        self._queue.refund(flow, tokens)

    def charge(self, flow: Flow, tokens: int) -> None:
        """Let a flow pay for what was generated beyond what it was charged for, unless nobody is there to mind."""
        if self._requests and tokens > 0:
            self._queue.owe(flow, tokens)

    def _free_places(self, sequences: int) -> int:
        """How many requests of that width could start now."""
        if self._queue or not self._fits(sequences):
            return 0
        return max(1, (self.max_running - self._running) // sequences)

    def _fits(self, sequences: int) -> bool:
        if self._holds:
            return False
        return self._running == 0 or self._running + sequences <= self.max_running

    async def _wait(self, sequences: int, prompt_tokens: int, work: int, flow: Flow) -> None:
        loop = asyncio.get_running_loop()
        entry = Waiting(flow, sequences, prompt_tokens, work, loop.create_future(), since=self._clock())
        self._queue.push(entry)
        self._make_room(entry)
        self._rate.wait()
        self._wake()  # a new flow may go before those that wait for a wider place
        limit = loop.call_later(self.queue_seconds, self._expire, entry) if self.queue_seconds else None
        try:
            await entry.turn
        except asyncio.CancelledError:
            if entry.queued:
                self._queue.remove(entry)
            elif not entry.turn.cancelled() and entry.turn.exception() is None:
                self._running -= sequences  # the turn came in the same step as the cancellation
            self._wake()
            raise
        finally:
            if limit is not None:
                limit.cancel()

    def _make_room(self, newcomer: Waiting) -> None:
        """Keep the queue within its bounds: whoever has most waiting loses what came last."""
        sent_away: list[Waiting] = []
        # A bound that shrank sends nobody away who waits already: one for each that comes.
        bound = max(self.queue_bound, len(self._queue) - 1)
        while (measure := self._beyond(bound)) is not None:
            entry = self._queue.newest_of_longest(newcomer.flow, measure)
            self._queue.remove(entry)
            if entry is newcomer:
                for other in reversed(sent_away):
                    self._queue.push(other)
                raise self._full(measure)
            sent_away.append(entry)
        for entry in sent_away:
            if not entry.turn.done():
                entry.turn.set_exception(self._full("requests"))

    def _beyond(self, bound: int) -> Measure | None:
        if len(self._queue) > bound:
            return "requests"
        if len(self._queue) > 1 and self._queue.tokens > self.max_queued_tokens:
            return "tokens"
        return None

    def _expire(self, entry: Waiting) -> None:
        if entry.queued and not entry.turn.done():
            self._queue.remove(entry)
            entry.turn.set_exception(
                QueueTimeoutError(f"the request waited for {self.queue_seconds:g} s and did not get its turn")
            )
            self._wake()

    def _wake(self) -> None:
        while (entry := self._queue.first()) is not None and self._fits(entry.sequences):
            if entry.turn.cancelled():
                self._queue.remove(entry)  # its task was cancelled and has not run since
                continue
            self._queue.serve(entry)
            self._running += entry.sequences
            entry.turn.set_result(None)
        if not self._queue:
            self._rate.idle()

    def _full(self, measure: Measure) -> QueueFullError:
        per_finish = self._rate.seconds_per_finish
        if measure == "requests" and self.queue_bound < self.max_queued_requests and per_finish is not None:
            why = (
                f"{len(self._queue)} requests wait, about {per_finish * len(self._queue):.0f} s of work (at most "
                f"{self.max_wait_seconds:g} s)"
            )
        elif measure == "requests":
            why = f"{len(self._queue)} requests wait (at most {self.max_queued_requests})"
        else:
            why = f"{self._queue.tokens} prompt tokens wait (at most {self.max_queued_tokens})"
        seconds = math.ceil((1.0 if per_finish is None else per_finish) * max(1, len(self._queue)))
        retry = min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, seconds))
        return QueueFullError(f"the queue is full: {why}; try again in {retry} s", retry_after_seconds=retry)
