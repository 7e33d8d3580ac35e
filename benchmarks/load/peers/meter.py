"""Processor time of each turn: what a server's HTTP process spends on a token, and whether the machine was busy."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from benchmarks.closed_loop.block import Cost
from benchmarks.closed_loop.clock import Clock
from benchmarks.closed_loop.comparison import NOISY_SHARE
from benchmarks.closed_loop.server import Server
from benchmarks.load.run import RunResult

# Names in a run's figures.
HTTP_CPU = "http_cpu_ms_per_token"
FOREIGN_CPU = "foreign_cpu_share"


class Meter:
    """The costs of one arm's turns, in their order."""

    def __init__(self) -> None:
        self._costs: list[Cost] = []

    @contextlib.contextmanager
    def turn(self, servers: Mapping[str, Server], loaded: str) -> Iterator[None]:
        """Everything within is one turn of the server called `loaded`."""
        before, client = Clock.read(servers), _ended_children_seconds()
        yield
        client = _ended_children_seconds() - client
        self._costs.append(before.cost_since(Clock.read(servers), servers[loaded], client))

    def note(self, number: int, run: RunResult) -> bool:
        """Add turn `number`'s costs to the figures of its run; returns whether the machine did something else."""
        cost = self._costs[number]
        tokens = sum(record.completion_tokens or len(record.event_seconds) for record in run.records)
        known = cost.http_cpu_seconds is not None and tokens
        run.figures[HTTP_CPU] = round(1000 * (cost.http_cpu_seconds or 0.0) / tokens, 4) if known else None
        run.figures[FOREIGN_CPU] = round(cost.foreign_cpu_share, 4)
        return cost.foreign_cpu_share > NOISY_SHARE


def _ended_children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system
