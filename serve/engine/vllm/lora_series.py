"""vLLM's series of adapters in use, with the names of now alone.

Defect (vLLM 0.32.0, any device; memory): in each step `PrometheusStatLogger.record` sets `vllm:lora_requests_info`,
whose labels are the names of all adapters that run and wait, and no label set ever goes. With many adapters hardly
two requests meet the same company, so that the gateway grows with every request, by about a kilobyte, and so does
what a scrape of /metrics reads.

Mend: before other names are set, the series with the names before is dropped. The gauge's value is the time at
which it was set: readers take the newest, which is the one that is left.

Can go when vLLM drops label sets, or has one series for each adapter.
"""

from __future__ import annotations

from typing import Any


class NewestLabels:
    """In place of a gauge with labels: of its series there is the one that was labelled last."""

    def __init__(self, gauge: Any) -> None:
        self._gauge = gauge
        self._last: dict[str, object] | None = None

    def labels(self, **labels: object) -> Any:
        """The gauge's child with those labels."""
        if labels != self._last:
            self._gauge.clear()
            self._last = labels
        return self._gauge.labels(**labels)


def bound_lora_series(client: Any) -> int:
    """Let each of the client's Prometheus loggers keep one series of adapters in use; returns how many do.

    Doing it again changes nothing. With several engines behind a client they share the one series.
    """
    bound = 0
    for logger in getattr(getattr(client, "logger_manager", None), "stat_loggers", ()):
        gauge = getattr(logger, "gauge_lora_info", None)
        if gauge is None:
            continue
        if not isinstance(gauge, NewestLabels):
            logger.gauge_lora_info = NewestLabels(gauge)
        bound += 1
    return bound
