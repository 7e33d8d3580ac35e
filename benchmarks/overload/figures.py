"""What one stage of load brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.overload.record import Record
from benchmarks.statistics import percentile


@dataclass(frozen=True, slots=True)
class Limits:
    """What makes an answer good: it came whole, and in time."""

    ttft_seconds: float
    e2e_seconds: float

    def met_by(self, record: Record) -> bool:
        """Whether an answer is a good one."""
        ttft, e2e = record.ttft_seconds, record.e2e_seconds
        return (
            record.answered
            and ttft is not None
            and e2e is not None
            and ttft <= self.ttft_seconds
            and e2e <= self.e2e_seconds
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """The figures of one stage. Rates are of answers that ended in its steady part; None: there were none."""

    name: str
    offered_per_second: float | None  # None: a closed loop
    workers: int
    steady_seconds: float
    sent: int
    answered: int
    good: int
    refused: int
    errors: dict[str, int]
    goodput_per_second: float
    answers_per_second: float
    tokens_per_second: float
    ttft_p50_seconds: float | None
    ttft_p99_seconds: float | None
    e2e_p99_seconds: float | None
    refusal_p50_seconds: float | None
    refusal_p99_seconds: float | None
    lag_p99_seconds: float
    foreign_cpu_share: float


def measure_stage(
    records: Sequence[Record],
    limits: Limits,
    *,
    name: str,
    offered_per_second: float | None,
    workers: int,
    steady: tuple[float, float],
    foreign_cpu_share: float,
) -> Stage:
    """The figures of a stage whose steady part is from the first to the second of `steady`, in seconds."""
    start, end = steady
    ended = [
        record for record in records if record.done_seconds is not None and start < record.done_seconds <= end
    ]
    answered = [record for record in ended if record.answered]
    good = [record for record in answered if limits.met_by(record)]
    refused = [record for record in ended if record.refused]
    ttft = [record.ttft_seconds for record in answered if record.ttft_seconds is not None]
    e2e = [record.e2e_seconds for record in answered if record.e2e_seconds is not None]
    refusals = [record.service_seconds for record in refused if record.service_seconds is not None]
    seconds = end - start
    return Stage(
        name=name,
        offered_per_second=offered_per_second,
        workers=workers,
        steady_seconds=seconds,
        sent=len(records),
        answered=len(answered),
        good=len(good),
        refused=len(refused),
        errors=dict(Counter(record.error for record in records if record.error is not None)),
        goodput_per_second=len(good) / seconds,
        answers_per_second=len(answered) / seconds,
        tokens_per_second=sum(record.tokens or 0 for record in answered) / seconds,
        ttft_p50_seconds=_share(ttft, 0.5),
        ttft_p99_seconds=_share(ttft, 0.99),
        e2e_p99_seconds=_share(e2e, 0.99),
        refusal_p50_seconds=_share(refusals, 0.5),
        refusal_p99_seconds=_share(refusals, 0.99),
        lag_p99_seconds=percentile([record.lag_seconds for record in records], 0.99) if records else 0.0,
        foreign_cpu_share=foreign_cpu_share,
    )


def _share(values: Sequence[float], share: float) -> float | None:
    return percentile(values, share) if values else None
