"""Requests that are being answered now, and the one way to end one early.

A disconnect, a deadline, an unload and a shutdown all do the same thing: they name a cause and cancel the task
that drives the request. The task comes out of `RunningRequest.guard` with that cause as its exception.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve.errors import ServeError

logger = logging.getLogger("hotswap.gateway")


class ClientGoneError(ServeError):
    """The client closed the connection before the answer was complete."""

    code = "client_gone"


def _nothing() -> None:
    pass


class RunningRequest:
    """One request, tied to the task that created it."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.version: str | None = None  # engine name of the adapter, None: the base or not known yet
        self.cause: ServeError | None = None
        self.before_abort: Callable[[], None] = _nothing  # called once, while everything still runs
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request can only be tracked from inside a task")
        self._task: asyncio.Task[object] | None = task

    def abort(self, cause: ServeError) -> None:
        """End the request with `cause`. The first cause wins; after the end this does nothing."""
        if self._task is not None and self.cause is None:
            self.cause = cause
            self._task.cancel()  # which it hears of when this step is over
            try:
                self.before_abort()
            except Exception:  # the background boundary: whatever it was, the request ends
                logger.exception("request %s: its end could not be prepared", self.request_id)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn the cancellation made by `abort` into its cause. One guard per request, around all its work."""
        try:
            yield
        except asyncio.CancelledError:
            if self.cause is None or self._task is None:
                raise  # somebody else's cancellation
            self._task.uncancel()
            raise self.cause from None
        finally:
            self._task = None


class RunningRequests:
    """All requests that are being answered."""

    def __init__(self) -> None:
        self._requests: set[RunningRequest] = set()

    def __len__(self) -> int:
        return len(self._requests)

    @contextmanager
    def track(self, request_id: str) -> Iterator[RunningRequest]:
        """Register the current task's request for the length of the block, guarded."""
        request = RunningRequest(request_id)
        self._requests.add(request)
        try:
            with request.guard():
                yield request
        finally:
            self._requests.discard(request)

    def abort_all(self, cause: ServeError) -> int:
        """End every request; returns how many."""
        requests = list(self._requests)
        for request in requests:
            request.abort(cause)
        return len(requests)

    def abort_version(self, version: str, cause: ServeError) -> int:
        """End the requests that run on one adapter version; returns how many."""
        requests = [request for request in self._requests if request.version == version]
        for request in requests:
            request.abort(cause)
        return len(requests)
