"""Who used the processors between two moments: the server under load, others, the client, and anything else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from benchmarks.closed_loop.block import Cost
from benchmarks.server import Server


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall and processor time of everybody at one moment."""

    wall_seconds: float
    busy_seconds: float  # of the whole machine
    own_seconds: float
    servers: Mapping[str, tuple[float, float] | None]

    @classmethod
    def read(cls, servers: Mapping[str, Server]) -> Clock:
        """Now; servers that were not started here are known by name alone."""
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        guest = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)  # also part of user
        return cls(
            wall_seconds=time.monotonic(),
            busy_seconds=sum(machine) - idle - guest,
            own_seconds=own.user + own.system,
            servers={name: server.cpu_seconds() for name, server in servers.items()},
        )

    def cost_since(self, now: Clock, loaded: Server, client_seconds: float) -> Cost:
        """What was spent from this moment to `now`, while `loaded` was under load from a client of its own."""
        http = total = None
        idle = 0.0
        for name, then in self.servers.items():
            after = now.servers[name]
            if then is None or after is None:
                continue
            if name == loaded.spec.name:
                http, total = after[0] - then[0], after[1] - then[1]
            else:
                idle += after[1] - then[1]
        known = (total or 0.0) + idle + client_seconds + now.own_seconds - self.own_seconds
        capacity = (now.wall_seconds - self.wall_seconds) * (psutil.cpu_count() or 1)
        foreign = max(0.0, now.busy_seconds - self.busy_seconds - known)
        return Cost(http, total, client_seconds, idle, foreign / capacity)
