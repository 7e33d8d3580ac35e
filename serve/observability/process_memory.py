"""Memory of the gateway's process and of the processes it started, read when somebody asks for /metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

GATEWAY = "gateway"
ENGINE = "engine"
HELPER = "helper"
_PEAK_LINE = "VmHWM:"
# The fork server holds what the engine imported, most of it shared with the engine. An engine that was spawned has
# given itself another title by the time it has memory; those that read adapters' files have not.
_HELPER_MARKS = (
    "grammar_worker",
    "multiprocessing.forkserver",
    "multiprocessing.spawn",
    "multiprocessing.resource_tracker",
)


class ProcessMemory(Collector):
    """Resident bytes, now and at their peak, of the gateway, of its engine and of its helpers."""

    def describe(self) -> list[Metric]:
        """The families without samples: nothing is measured when this is registered."""
        return list(self._families({}))

    def collect(self) -> Iterator[Metric]:
        found: dict[str, tuple[int, int]] = {}
        with contextlib.suppress(psutil.Error):
            own = psutil.Process()
            found[GATEWAY] = _memory(own)
            for child in own.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    kind, (now, peak) = kind_of(child), _memory(child)
                    before = found.get(kind, (0, 0))
                    found[kind] = (before[0] + now, before[1] + peak)
        yield from self._families(found)

    def _families(self, found: dict[str, tuple[int, int]]) -> Iterator[Metric]:
        now = GaugeMetricFamily(
            "hotswap_process_memory_bytes",
            "Resident memory of the gateway, the engine's processes and helper processes, bytes.",
            labels=["process"],
        )
        peak = GaugeMetricFamily(
            "hotswap_process_memory_peak_bytes",
            "The most resident memory since those processes began, bytes; of several the sum of their peaks.",
            labels=["process"],
        )
        for kind, (now_bytes, peak_bytes) in found.items():
            now.add_metric([kind], now_bytes)
            peak.add_metric([kind], peak_bytes)
        yield from (now, peak)


def _memory(process: psutil.Process) -> tuple[int, int]:
    """(resident bytes now, at their peak); where the system keeps no peak, now stands for it."""
    now = int(process.memory_info().rss)
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith(_PEAK_LINE):
                return now, max(now, int(line.split()[1]) * 1024)
    return now, now


def kind_of(process: psutil.Process) -> str:
    """ENGINE or HELPER, of a process that the gateway started. Raises psutil.Error."""
    line = " ".join(process.cmdline())
    return HELPER if any(mark in line for mark in _HELPER_MARKS) else ENGINE
