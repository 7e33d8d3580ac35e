"""Steps that only decode are written together, and nothing is lost or counted twice."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass, field
from typing import Any

import pytest

from serve.engine.vllm import step_stats
from serve.engine.vllm.step_stats import held_step_stats, only_decodes

with warnings.catch_warnings():  # importing vLLM raises some of torch's
    warnings.simplefilter("ignore")
    from vllm.v1.metrics.loggers import PrometheusStatLogger
    from vllm.v1.metrics.stats import IterationStats, SchedulerStats


@dataclass
class Series:
    """In place of one of Prometheus's."""

    values: list[float] = field(default_factory=list)

    def observe(self, value: float) -> None:
        self.values.append(value)

    inc = observe


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What reaches vLLM's own logger: (scheduler's, step's)."""
    found: list[tuple[Any, Any]] = []

    def record(_: Any, scheduler: Any, steps: Any, mm_cache: Any, engine: int) -> None:
        del mm_cache, engine
        found.append((scheduler, steps))

    monkeypatch.setattr(PrometheusStatLogger, "record", record)
    return found


def logger_of_one_engine() -> Any:
    kind: Any = held_step_stats()
    made = kind.__new__(kind)  # without vLLM's series, which are one for each process
    made._held, made._timer = {}, None
    made.histogram_inter_token_latency = {0: Series()}
    made.histogram_iteration_tokens = {0: Series()}
    made.counter_generation_tokens = {0: Series()}
    return made


def decode(*latencies: float, running: int = 1) -> tuple[SchedulerStats, IterationStats]:
    steps = IterationStats()
    steps.num_generation_tokens = len(latencies)
    steps.inter_token_latencies_iter = list(latencies)
    return SchedulerStats(num_running_reqs=running), steps


def first_token() -> tuple[SchedulerStats, IterationStats]:
    scheduler, steps = decode()
    steps.num_generation_tokens = 1
    steps.time_to_first_tokens_iter = [0.1]
    return scheduler, steps


def test_only_steps_that_say_nothing_else_are_held() -> None:
    assert only_decodes(*decode(0.02))
    assert not only_decodes(*first_token())
    assert not only_decodes(SchedulerStats(), None)
    scheduler, steps = decode(0.02)
    scheduler.prefix_cache_stats.queries = 64
    assert not only_decodes(scheduler, steps)


async def test_held_steps_are_written_before_the_next_step_that_says_more(
    said: list[tuple[Any, Any]],
) -> None:
    logger = logger_of_one_engine()
    logger.record(*decode(0.02, 0.03, running=2))
    logger.record(*decode(0.04, running=1))
    assert said == []
    more = first_token()
    logger.record(*more)
    assert [(scheduler.num_running_reqs, steps) for scheduler, steps in said] == [(1, None), (1, more[1])]
    assert logger.histogram_inter_token_latency[0].values == [0.02, 0.03, 0.04]
    assert logger.histogram_iteration_tokens[0].values == [2, 1]
    assert logger.counter_generation_tokens[0].values == [3]
    assert logger._timer is None


async def test_held_steps_are_written_in_time_when_nothing_follows(
    said: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_stats, "HELD_SECONDS", 0.0)
    logger = logger_of_one_engine()
    logger.record(*decode(0.02))
    while logger._timer is not None:
        await asyncio.sleep(0)
    assert [steps for _, steps in said] == [None]
    assert logger.counter_generation_tokens[0].values == [1]
