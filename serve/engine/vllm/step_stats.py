"""vLLM's Prometheus series without twenty writes between every token and the client that waits for it.

vLLM writes its series after each step, before the step's tokens are handed to their requests; with cold caches that
is a tenth of a millisecond of a processor that the engine shares. Steps that only decode change a few gauges, one
counter and two histograms: they are held and written together, `HELD_SECONDS` late at most. Every other step is
written at once, after those that are held. What /metrics says in the end is the same.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

HELD_SECONDS = 0.25


def only_decodes(scheduler: Any, steps: Any) -> bool:
    """Whether a step's statistics (vLLM's SchedulerStats and IterationStats) say nothing but that tokens came."""
    if scheduler is None or steps is None or not steps.num_generation_tokens:
        return False
    said = (
        scheduler.prefix_cache_stats.queries,
        scheduler.connector_prefix_cache_stats,
        scheduler.kv_cache_eviction_events,
        scheduler.spec_decoding_stats,
        scheduler.kv_connector_stats,
        scheduler.ec_connector_stats,
        scheduler.perf_stats,
        steps.num_prompt_tokens,
        steps.num_preempted_reqs,
        steps.finished_requests,
        steps.max_num_generation_tokens_iter,
        steps.n_params_iter,
        steps.time_to_first_tokens_iter,
        steps.num_corrupted_reqs,
        steps.num_watermarked_reqs,
        steps.num_watermark_skipped_reqs,
        steps.num_not_watermarked_reqs,
    )
    return not any(said)


@functools.cache
def held_step_stats() -> type[Any]:
    """vLLM's own logger, for a process that has vLLM: a class that its client makes an object of."""
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class HeldStepStats(PrometheusStatLogger):  # type: ignore[misc]
        """Steps that only decode wait for the next one that does not, or for the timer.

        Belongs to the event loop on which vLLM records.
        """

        def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
            super().__init__(vllm_config, engine_indexes)
            self._held: dict[int, list[tuple[Any, Any]]] = {}  # (scheduler's, step's) by engine
            self._timer: asyncio.TimerHandle | None = None

        def record(
            self,
            scheduler_stats: Any,
            iteration_stats: Any,
            mm_cache_stats: Any = None,
            engine_idx: int = 0,
        ) -> None:
            """As vLLM's."""
            if mm_cache_stats is None and only_decodes(scheduler_stats, iteration_stats):
                self._held.setdefault(engine_idx, []).append((scheduler_stats, iteration_stats))
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(HELD_SECONDS, self._on_time)
                return
            self._write(engine_idx)
            super().record(scheduler_stats, iteration_stats, mm_cache_stats, engine_idx)

        def _on_time(self) -> None:
            self._timer = None
            for engine_idx in list(self._held):
                self._write(engine_idx)

        def _write(self, engine_idx: int) -> None:
            held = self._held.pop(engine_idx, None)
            if held is None:
                return
            if not self._held and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            latencies = self.histogram_inter_token_latency[engine_idx]
            step_tokens = self.histogram_iteration_tokens[engine_idx]
            tokens = 0
            for _, steps in held:
                tokens += steps.num_generation_tokens
                step_tokens.observe(steps.num_generation_tokens)
                for seconds in steps.inter_token_latencies_iter:
                    latencies.observe(seconds)
            self.counter_generation_tokens[engine_idx].inc(tokens)
            super().record(held[-1][0], None, None, engine_idx)  # gauges: the last word counts

    return HeldStepStats
