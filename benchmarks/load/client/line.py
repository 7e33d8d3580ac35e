"""Deals a schedule out to the users of one process, and knows when enough was measured."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace

from benchmarks.load.client.order import Order
from benchmarks.load.client.record import Outcome, Record
from benchmarks.load.workload.arrivals import MAX_ARRIVALS
from benchmarks.load.workload.schedule import Arrival


class Line:
    """The requests that are still to be sent. Belongs to one gevent hub: nothing here waits."""

    def __init__(self, order: Order, start_at_seconds: float) -> None:
        """`start_at_seconds`: when the run begins, by `time.monotonic()`, the same in all processes."""
        self.order = order
        self.start_at_seconds = start_at_seconds
        self.records: list[Record] = []
        self.outcomes: Counter[Outcome] = Counter()  # of those that have ended
        self.late_for_a_sender = 0
        # Of a window in requests both ends are known when they come.
        counted = order.requests is not None
        self.window_start = math.inf if counted else order.measure_from_seconds
        self.window_end = math.inf if counted else order.measure_to_seconds
        self._next = 0
        self._open_measured = 0
        self._begun_measured = 0
        self._first_open = order.schedule.closed_workers or 0  # workers that have no answer yet
        self._last_due = max((a.at_seconds or 0.0 for a in order.schedule.arrivals), default=0.0)

    def now(self) -> float:
        """Seconds from the start of the run."""
        return time.monotonic() - self.start_at_seconds

    def take(self) -> Arrival | None:
        """The next request; None when there is none. A closed loop begins again when its list ends."""
        arrivals = self.order.schedule.arrivals
        if self.order.schedule.closed_workers is not None:
            return self._take_again()
        if self._next >= len(arrivals):
            return None
        arrival = arrivals[self._next]
        self._next += 1
        due = arrival.at_seconds or 0.0
        if self.now() > due:
            self.late_for_a_sender += 1
        if self._counts(due):
            self._open_measured += 1
        return arrival

    def _take_again(self) -> Arrival:
        arrivals, workers = self.order.schedule.arrivals, self.order.schedule.closed_workers or 1
        lap, place = divmod(self._next, len(arrivals))
        arrival = arrivals[place]
        if lap:  # the same requests with other texts, which no prefix cache knows
            arrival = replace(arrival, number=arrival.number + lap * MAX_ARRIVALS)
        elif self.order.out_of_step and place < workers:
            # In step with each other all would send in the same instant, again and again.
            arrival = replace(arrival, max_tokens=1 + (place + 1) * (arrival.max_tokens - 1) // workers)
        self._next += 1
        return arrival

    def begin(self, record: Record) -> None:
        """A request is being sent."""
        self.records.append(record)
        if self.order.schedule.closed_workers is None or not self._counts(record.scheduled_seconds):
            return
        if self._begun_measured == self.order.requests:
            self.window_end = record.scheduled_seconds
            return
        self._begun_measured += 1
        self._open_measured += 1

    def end(self, record: Record) -> None:
        """It has ended."""
        self.outcomes[record.outcome] += 1
        if self._counts(record.scheduled_seconds):
            self._open_measured -= 1
        if self.order.requests is not None and record.number < (self.order.schedule.closed_workers or 0):
            self._first_open -= 1
            if not self._first_open:
                self.window_start = self.now()
                self.window_end = self.window_start + self.order.measure_to_seconds

    @property
    def complete(self) -> bool:
        """Whether every request that counts has been sent and has ended, or the time for it is over."""
        tail = self.order.tail_seconds
        if tail is not None and self.now() >= self.window_end + tail:
            return True
        if self._open_measured or self.now() < min(self.window_end, self._end):
            return False
        arrivals = self.order.schedule.arrivals
        if self.order.schedule.closed_workers is not None or self._next >= len(arrivals):
            return True
        return (arrivals[self._next].at_seconds or 0.0) >= self.window_end

    @property
    def _end(self) -> float:
        closed = self.order.schedule.closed_workers is not None
        return self.window_end if closed else max(self._last_due, self.window_start)

    def _counts(self, due: float) -> bool:
        return self.window_start <= due < self.window_end
