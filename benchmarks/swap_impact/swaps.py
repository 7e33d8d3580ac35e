"""Replaces one adapter at a fixed pace, and keeps what each swap took."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Swap:
    """One replacement. Seconds count from the start of the load."""

    at_seconds: float
    answer_seconds: float  # from the admin request to its answer
    phase_seconds: dict[str, float] = field(default_factory=dict)  # as the gateway measured them
    error: str | None = None


class Swaps:
    """In a `with` statement `name` is replaced every `interval_seconds` by the next of `sources`.

    A swap that takes longer than the interval puts the next one off; none is left out to catch up.
    """

    def __init__(
        self, url: str, name: str, sources: Sequence[str], *, interval_seconds: float, start_at_seconds: float
    ) -> None:
        self.done: list[Swap] = []
        self._url = url
        self._name = name
        self._sources = sources
        self._interval_seconds = interval_seconds
        self._start_at_seconds = start_at_seconds  # of time.monotonic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="swaps")

    def __enter__(self) -> Swaps:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120.0) as client:
            due = self._start_at_seconds
            number = 0
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                self.done.append(self._swap(client, self._sources[number % len(self._sources)]))
                number += 1
                due = max(due + self._interval_seconds, time.monotonic())

    def _swap(self, client: httpx.Client, source: str) -> Swap:
        started = time.monotonic()
        at = started - self._start_at_seconds
        try:
            answer = client.post("/admin/adapters", json={"name": self._name, "source": source})
            seconds = time.monotonic() - started
            if answer.status_code not in (200, 201):
                return Swap(at, seconds, error=f"HTTP {answer.status_code}: {answer.text[:300]}")
            fields = answer.json()
            if not fields["created"]:
                return Swap(at, seconds, error="this version was live already, so nothing was replaced")
            return Swap(at, seconds, _phases(fields["adapter"]))
        except httpx.HTTPError as error:
            return Swap(at, time.monotonic() - started, error=f"{type(error).__name__}: {error}")


def _phases(adapter: dict[str, Any]) -> dict[str, float]:
    live = next((one for one in adapter["versions"] if one["version"] == adapter["live"]), None)
    return dict(live["phase_seconds"]) if live is not None else {}
