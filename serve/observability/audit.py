"""Writes admin calls that no verb records into the event log; calls without a good key only up to a bound."""

from __future__ import annotations

import time

from pydantic import JsonValue

from adapters.registry.records import Event
from serve.observability.events import EventLog

UNKNOWN = "unknown"  # an actor that nobody knows
STRANGERS_PER_MINUTE = 60
_ACTION_CHARACTERS = 64


class StrangerGate:
    """Lets so many calls of strangers a minute into the audit log; the rest is counted, so that nobody fills it."""

    def __init__(self, per_minute: int = STRANGERS_PER_MINUTE) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._refilled = time.monotonic()
        self._passed_over = 0

    def admit(self) -> int | None:
        """None: not this one. Otherwise how many were passed over since the last one."""
        now = time.monotonic()
        self._left = min(self._per_minute, self._left + (now - self._refilled) * self._per_minute / 60.0)
        self._refilled = now
        if self._left < 1.0:
            self._passed_over += 1
            return None
        self._left -= 1.0
        passed_over, self._passed_over = self._passed_over, 0
        return passed_over


class Audit:
    """Belongs to one event loop."""

    def __init__(self, events: EventLog, *, strangers_per_minute: int = STRANGERS_PER_MINUTE) -> None:
        self._events = events
        self._strangers = StrangerGate(strangers_per_minute)

    def call(
        self,
        action: str,
        *,
        actor: str | None,
        status: int,
        outcome: str,
        request_id: str,
        name: str | None = None,
        address: str | None = None,
    ) -> None:
        """Note one call: "DELETE /admin/adapters/{name}". `actor` None: nobody that is known, from `address`."""
        detail: dict[str, JsonValue] = {"status": status, "request_id": request_id}
        if actor is None:
            passed_over = self._strangers.admit()
            if passed_over is None:
                return
            if passed_over:
                detail["passed_over"] = passed_over
            if address is not None:
                detail["address"] = address
        self._events.note(Event(actor or UNKNOWN, action[:_ACTION_CHARACTERS], outcome, name, detail=detail))
