"""vLLM's series of adapters in use: one for every company that was ever met, and how it is kept to one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from prometheus_client import CollectorRegistry, Gauge

from serve.engine.vllm.lora_series import bound_lora_series

NAMES = ("max_lora", "waiting_lora_adapters", "running_lora_adapters")


def a_logger() -> Any:
    """What vLLM's Prometheus logger has for its series of adapters; everything else of it does nothing."""
    logger = MagicMock(max_lora=4, **{f"labelname_{name}": name for name in NAMES})
    logger.gauge_lora_info = Gauge("lora", "Adapters in use.", NAMES, registry=CollectorRegistry())
    return logger


def running_in(gauge: Any) -> list[str]:
    (family,) = gauge.collect()
    return [sample.labels["running_lora_adapters"] for sample in family.samples]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("is_bound", [False, True])
def test_of_all_companies_of_adapters_the_present_one_alone_has_a_series(is_bound: bool) -> None:
    from vllm.v1.metrics.loggers import PrometheusStatLogger
    from vllm.v1.metrics.stats import SchedulerStats

    logger = a_logger()
    gauge = logger.gauge_lora_info
    if is_bound:
        client = SimpleNamespace(logger_manager=SimpleNamespace(stat_loggers=[logger]))
        assert bound_lora_series(client) == bound_lora_series(client) == 1
    companies = [{f"risk@{number:08x}": 1, "tone@00000001": 1} for number in range(5)]
    for running in companies:
        for _ in range(2):
            stats = SchedulerStats(running_lora_adapters=running)
            PrometheusStatLogger.record(logger, stats, iteration_stats=None)
    expected = [",".join(running) for running in companies]
    # Where the first part fails vLLM has mended it: then serve/engine/vllm/lora_series.py can go.
    assert running_in(gauge) == (expected[-1:] if is_bound else expected)


def test_a_client_without_such_series_is_left_as_it_is() -> None:
    assert bound_lora_series(SimpleNamespace(logger_manager=None)) == 0
    silent = SimpleNamespace(gauge_lora_info=None)
    assert bound_lora_series(SimpleNamespace(logger_manager=SimpleNamespace(stat_loggers=[silent]))) == 0
