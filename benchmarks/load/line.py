"""Deals a schedule out to the users of one process, and knows when enough was measured."""

from __future__ import annotations

import time

from benchmarks.load.order import Order
from benchmarks.load.record import Record
from benchmarks.load.schedule import Arrival


class Line:
    """The requests that are still to be sent. Belongs to one gevent hub: nothing here waits."""

    def __init__(self, order: Order, start_at_seconds: float) -> None:
        """`start_at_seconds`: when the run begins, by `time.monotonic()`, the same in all processes."""
        self.order = order
        self.start_at_seconds = start_at_seconds
        self.records: list[Record] = []
        self.late_for_a_sender = 0
        self._next = 0
        self._open_measured = 0
        self._last_due = max((a.at_seconds or 0.0 for a in order.schedule.arrivals), default=0.0)

    def now(self) -> float:
        """Seconds from the start of the run."""
        return time.monotonic() - self.start_at_seconds

    def take(self) -> Arrival | None:
        """The next request; None when there is none. A closed loop begins again when its list ends."""
        arrivals = self.order.schedule.arrivals
        if self.order.schedule.closed_workers is not None:
            arrival = arrivals[self._next % len(arrivals)]
            self._next += 1
            return arrival
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

    def begin(self, record: Record) -> None:
        """A request is being sent."""
        self.records.append(record)
        if self.order.schedule.closed_workers is not None and self._counts(record.scheduled_seconds):
            self._open_measured += 1

    def end(self, record: Record) -> None:
        """It has ended."""
        if self._counts(record.scheduled_seconds):
            self._open_measured -= 1

    @property
    def complete(self) -> bool:
        """Whether every request that counts has been sent and has ended, or the time for it is over."""
        tail = self.order.tail_seconds
        if tail is not None and self.now() >= self.order.measure_to_seconds + tail:
            return True
        if self._open_measured or self.now() < min(self.order.measure_to_seconds, self._end):
            return False
        arrivals = self.order.schedule.arrivals
        if self.order.schedule.closed_workers is not None or self._next >= len(arrivals):
            return True
        return (arrivals[self._next].at_seconds or 0.0) >= self.order.measure_to_seconds

    @property
    def _end(self) -> float:
        closed = self.order.schedule.closed_workers is not None
        return (
            self.order.measure_to_seconds if closed else max(self._last_due, self.order.measure_from_seconds)
        )

    def _counts(self, due: float) -> bool:
        return self.order.measure_from_seconds <= due < self.order.measure_to_seconds
