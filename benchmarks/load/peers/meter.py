"""What a server's HTTP process spends on a token: the steadiest measure of what a gateway costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.load.run import RunResult
from benchmarks.server import Server

HTTP_CPU = "http_cpu_ms_per_token"  # in a run's figures


class Meter:
    """Processor seconds of the HTTP process in each turn of one arm, in their order, warm-up included."""

    def __init__(self) -> None:
        self._seconds: list[float | None] = []

    @contextlib.contextmanager
    def turn(self, server: Server) -> Iterator[None]:
        """Everything within is one turn of `server`; of one that was not started here nothing is known."""
        before = server.cpu_seconds()
        yield
        after = server.cpu_seconds()
        self._seconds.append(None if before is None or after is None else after[0] - before[0])

    def note(self, number: int, run: RunResult) -> None:
        """Add turn `number`'s cost to the figures of its run."""
        seconds = self._seconds[number]
        tokens = sum(record.completion_tokens or len(record.event_seconds) for record in run.records)
        run.figures[HTTP_CPU] = None if seconds is None or not tokens else round(1000 * seconds / tokens, 4)
