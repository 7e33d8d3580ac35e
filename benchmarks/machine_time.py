"""How much of the machine others used between two moments, so that a disturbed block is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class MachineTime:
    """Processor seconds of the whole machine, and of the processes that belong to the measurement."""

    wall_seconds: float
    busy_seconds: float
    known_seconds: float

    @classmethod
    def read(cls, wall_seconds: float, process_ids: Iterable[int]) -> MachineTime:
        """Now. Processes that are gone count as nothing."""
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        guest = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)  # also part of user
        known = 0.0
        for process_id in process_ids:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = psutil.Process(process_id).cpu_times()
                # What it has started and waited for was part of the measurement as well.
                known += times.user + times.system + times.children_user + times.children_system
        return cls(wall_seconds, sum(machine) - idle - guest, known)

    def foreign_share(self, later: MachineTime) -> float:
        """Share of the machine that others used until `later`, 0 to 1."""
        capacity = (later.wall_seconds - self.wall_seconds) * (psutil.cpu_count() or 1)
        foreign = (later.busy_seconds - self.busy_seconds) - (later.known_seconds - self.known_seconds)
        # Processor time is counted in whole ticks: over a short while it can exceed what there was.
        return min(1.0, max(0.0, foreign) / capacity) if capacity > 0 else 0.0
