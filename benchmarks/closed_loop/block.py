"""One block of load on one server, and the figures that follow from its requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.closed_loop.sample import Sample
from benchmarks.statistics import percentile


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time during a block, warm-up included."""

    http_cpu_seconds: float | None  # the server's HTTP process
    server_cpu_seconds: float | None  # the whole server
    client_cpu_seconds: float
    idle_servers_cpu_seconds: float  # servers that were up and got no load
    foreign_cpu_share: float  # of the machine, spent by anything outside this measurement


@dataclass(frozen=True, slots=True)
class Block:
    """The figures of one block. None: nothing to compute it from."""

    part: str
    contender: str
    concurrency: int
    round: int
    attempted: int  # measured requests
    answered: int
    errors: dict[str, int]
    window_seconds: float
    output_tok_s: float | None
    ttft_seconds: list[float]  # of each measured request that was answered in full; so are the next two
    tpot_seconds: list[float]
    e2e_seconds: list[float]
    tokens_per_event: float | None
    prompt_tokens: list[int]  # least and most
    tokens_seen: float  # in all requests of the block, warm-up included
    cost: Cost

    @property
    def ttft_p50_seconds(self) -> float | None:
        """Median time to the first token."""
        return _median(self.ttft_seconds)

    @property
    def tpot_p50_seconds(self) -> float | None:
        """Median time per token after the first."""
        return _median(self.tpot_seconds)

    @property
    def http_cpu_ms_per_token(self) -> float | None:
        """What the HTTP process spends on a token, everything included."""
        if self.cost.http_cpu_seconds is None or not self.tokens_seen:
            return None
        return 1000 * self.cost.http_cpu_seconds / self.tokens_seen

    def to_dict(self) -> dict[str, Any]:
        """Plain fields, for JSON."""
        return {**asdict(self), "http_cpu_ms_per_token": self.http_cpu_ms_per_token}


def full_load_window(samples: Sequence[Sample]) -> tuple[float, float]:
    """From the end of the last warm-up request to the end of the first worker's last measured request.

    In between every worker has a request under way. (0, 0) when there is no such span.
    """
    measured = [
        sample for sample in samples if sample.stage == "measured" and sample.done_seconds is not None
    ]
    if not measured:
        return 0.0, 0.0
    warm = [s.done_seconds for s in samples if s.stage == "warmup" and s.done_seconds is not None]
    last_done: dict[int, float] = {}
    for sample in measured:
        last_done[sample.worker] = max(last_done.get(sample.worker, 0.0), sample.done_seconds or 0.0)
    start, end = max(warm, default=0.0), min(last_done.values())
    return (start, end) if end > start else (0.0, 0.0)


def measure_block(
    samples: Sequence[Sample], cost: Cost, *, part: str, contender: str, concurrency: int, round_number: int
) -> Block:
    """The figures of one block. Latencies are of measured requests that were answered in full."""
    measured = [sample for sample in samples if sample.stage == "measured"]
    answered = [sample for sample in measured if sample.ok]
    start, end = full_load_window(samples)
    in_window = sum(sample.tokens_between(start, end) for sample in samples if sample.error is None)
    events = sum(len(sample.event_seconds) for sample in answered)
    tokens = sum(sample.completion_tokens or 0 for sample in answered)
    prompt_tokens = [sample.prompt_tokens for sample in answered if sample.prompt_tokens is not None]
    return Block(
        part=part,
        contender=contender,
        concurrency=concurrency,
        round=round_number,
        attempted=len(measured),
        answered=len(answered),
        errors=dict(Counter(sample.error for sample in measured if sample.error is not None)),
        window_seconds=end - start,
        output_tok_s=in_window / (end - start) if answered and end > start else None,
        ttft_seconds=_known(sample.ttft_seconds for sample in answered),
        tpot_seconds=_known(sample.tpot_seconds for sample in answered),
        e2e_seconds=_known(sample.e2e_seconds for sample in answered),
        tokens_per_event=tokens / events if events else None,
        prompt_tokens=[min(prompt_tokens), max(prompt_tokens)] if prompt_tokens else [],
        tokens_seen=sum(
            sample.completion_tokens if sample.completion_tokens is not None else len(sample.event_seconds)
            for sample in samples
        ),
        cost=cost,
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [round(value, 6) for value in values if value is not None]


def _median(values: Sequence[float]) -> float | None:
    return percentile(values, 0.5) if values else None
