"""Reads a server's `/metrics` while load runs: at both ends of the window, and in between as often as it may."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from benchmarks.load.window import Window

_TIMEOUT_SECONDS = 10.0
_MOST_SHARE = 0.02  # of the time, spent in making and reading the text: it takes from what is measured


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer, as far as somebody asks for it."""

    at_seconds: float  # from the start of the run, when it was asked for
    took_seconds: float
    lines: tuple[str, ...]


class Scraper:
    """A thread beside the run; when `reading` has ended, `scrapes` and `reason` stand."""

    def __init__(
        self, url: str, window: Window, *, wanted: tuple[str, ...], key: str | None = None, every: float = 1.0
    ) -> None:
        """`wanted`: how the lines that are kept begin. `every`: seconds; 0: only at the window's ends."""
        self.scrapes: list[Scrape] = []
        self.reason: str | None = None  # why a scrape brought nothing; None: all did
        self._url = url + "/metrics"
        # Made before the run: to read the authorities of TLS takes a good part of a second.
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT_SECONDS)
        self._wanted = wanted
        self._window = window
        self._every = every
        self._ended = threading.Event()
        self._start_at_seconds = 0.0

    @contextmanager
    def reading(self, start_at_seconds: float) -> Iterator[None]:
        """Read while the block runs; the run began, or begins, at that moment by `time.monotonic()`."""
        self._start_at_seconds = start_at_seconds
        thread = threading.Thread(target=self._run, name="scraper", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._client.close()

    def _run(self) -> None:
        moment: float | None = self._window.start
        while moment is not None and not self._ended.wait(max(0.0, moment - self._now())):
            self._scrape()
            if not self.scrapes and self.reason is not None and self.reason.startswith("it answers"):
                return  # it will not have learnt it by the next time
            moment = self._next(moment)

    def _next(self, moment: float) -> float | None:
        """When to ask again; None: the window has ended."""
        if moment >= self._window.end:
            return None
        took = statistics.median([scrape.took_seconds for scrape in self.scrapes] or [0.0])
        step = max(self._every, took / _MOST_SHARE) if self._every else self._window.seconds
        following = max(moment + step, self._now())
        # A last one that is due shortly before the end would only be asked for twice.
        return self._window.end if following + step / 2 > self._window.end else following

    def _scrape(self) -> None:
        at = self._now()
        try:
            answer = self._client.get(self._url)
        except httpx.HTTPError as error:
            self.reason = f"{type(error).__name__}: {error}"
            return
        if answer.status_code != 200:
            hint = "; the key needs the scope `metrics`" if answer.status_code in (401, 403) else ""
            self.reason = f"it answers {answer.status_code}{hint}"
            return
        lines = tuple(line for line in answer.text.splitlines() if line.startswith(self._wanted))
        self.scrapes.append(Scrape(at, self._now() - at, lines))

    def _now(self) -> float:
        return time.monotonic() - self._start_at_seconds
