"""Asks `/readyz` all the time, and remembers when the answer changed."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import httpx

from benchmarks.errors import BenchmarkError

POLL_SECONDS = 0.02
_TIMEOUT_SECONDS = 30.0


class Readiness:
    """A thread of its own, in a `with` statement. Times are of time.monotonic, when the answer had come."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/readyz"
        self._changes: list[tuple[float, bool, str]] = []
        self._news = threading.Condition()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Readiness:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._news:
            self._news.notify_all()
        self._thread.join()

    def wait(self, ready: bool, *, after_seconds: float, limit_seconds: float) -> tuple[float, str]:
        """When it became so after `after_seconds`, and the reason it gave.

        Raises BenchmarkError when it does not within the limit, or before the `with` statement ends.
        """

        def found() -> tuple[float, str] | None:
            return next((c[::2] for c in self._changes if c[0] >= after_seconds and c[1] is ready), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._over.is_set(), limit_seconds)
        change = found()
        if change is None:
            word = "ready" if ready else "not ready"
            raise BenchmarkError(f"the gateway was not seen to be {word} within {limit_seconds:g} s")
        return change

    def _run(self) -> None:
        with httpx.Client(timeout=_TIMEOUT_SECONDS) as client:
            last: bool | None = None
            while not self._over.wait(POLL_SECONDS):
                try:
                    answer = client.get(self._url)
                    ready = answer.status_code == 200
                    why = "" if ready else str(answer.json()["error"]["message"])
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    ready, why = False, f"{type(error).__name__}: {error}"
                if ready is not last:
                    last = ready
                    with self._news:
                        self._changes.append((time.monotonic(), ready, why))
                        self._news.notify_all()
