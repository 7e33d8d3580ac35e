"""What the server's processes hold: memory, open files, threads; and whether it grows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psutil

from serve.observability.process_memory import ENGINE, GATEWAY, HELPER, kind_of

_MIB = 1024**2
_BLOCK_SHARE = 0.1  # of the samples, drawn together: memory of one moment is much like that of the next
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the gateway's process, at the engine's, and at those that help (files, schemas, forks)."""

    at_seconds: float
    gateway_mib: float
    engine_mib: float
    helper_mib: float
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Slope of a straight line through the samples, per hour, with its 95 % interval."""

    per_hour: float
    low: float
    high: float
    first: float  # of the line
    last: float

    @property
    def told(self) -> str:
        """What the interval says; a slope of less than a ten-thousandth per hour is none."""
        least = abs(self.first) * 1e-4
        if self.low > least:
            return "grows"
        return "shrinks" if self.high < -least else "no growth shown"

    def share_kept(self, per_hour: float) -> float:
        """Upper end of the interval as a share of the whole, for each thousand of what comes `per_hour`."""
        return self.high * 1000.0 / max(per_hour * self.first, 1e-9)


def own_bytes(process: psutil.Process) -> int:
    """Resident memory without that of files: libraries' pages come and go with whatever else the machine does."""
    held = process.memory_info()
    return int(held.rss - getattr(held, "shared", 0))


def look(at_seconds: float, process_ids: Sequence[int]) -> Look:
    """Look at the processes now; the first is the gateway."""
    memory = {GATEWAY: 0.0, ENGINE: 0.0, HELPER: 0.0}
    files = threads = 0
    for place, process_id in enumerate(process_ids):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(process_id)
            kind = kind_of(process) if place else GATEWAY
            memory[kind] += own_bytes(process) / _MIB
            files += process.num_fds()
            threads += process.num_threads()
    mib = {kind: round(size, 2) for kind, size in memory.items()}
    return Look(at_seconds, mib[GATEWAY], mib[ENGINE], mib[HELPER], files, threads)


def growth(seconds: Sequence[float], values: Sequence[float], *, seed: int = 0) -> Growth:
    """The trend of a series. Raises ValueError for fewer than eight samples.

    Neighbours are alike, so that the plain error of a slope would be far too small: the interval is of a
    bootstrap of the residuals in blocks.
    """
    if len(values) < 8:
        raise ValueError(f"{len(values)} samples show no trend; 8 are needed")
    hours = np.asarray(seconds) / 3600.0
    measured = np.asarray(values)
    slope, start = np.polyfit(hours, measured, 1)
    fitted = slope * hours + start
    residuals = measured - fitted
    draw = np.random.default_rng(seed)
    size = max(2, round(len(values) * _BLOCK_SHARE))
    places = np.arange(size)
    slopes = []
    for _ in range(_RESAMPLES):
        begins = draw.integers(0, len(values) - size + 1, size=-(-len(values) // size))
        drawn = residuals[(begins[:, None] + places).ravel()[: len(values)]]
        slopes.append(np.polyfit(hours, fitted + drawn, 1)[0])
    low, high = np.percentile(slopes, [2.5, 97.5])
    return Growth(float(slope), float(low), float(high), float(fitted[0]), float(fitted[-1]))
