"""Whether a run counts: a client that was late, or a server that was falling behind, make figures that mislead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats  # type: ignore[import-untyped]

from benchmarks.load.client.record import Record
from benchmarks.load.figures.disturbance import MOST_SHARE
from benchmarks.load.window import Window

MAX_DELAY_SECONDS = 0.010  # p99 of the dispatch delay
MAX_DELAY_OF_TTFT = 0.01  # and of the median TTFT, where that is more
FEW_REQUESTS = 100
_SATURATION_SECONDS = 20.0  # a shorter window shows no trend
_SURE = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that speaks against a run."""

    code: str
    message: str
    invalid: bool  # the figures do not count; otherwise: read them with care


def findings(
    figures: dict[str, Any],
    records: Sequence[Record],
    window: Window,
    *,
    closed: bool,
    late_for_a_sender: int,
    foreign_cpu_share: float | None = None,
) -> list[Finding]:
    """Everything that speaks against a run, the worst first."""
    found: list[Finding] = []
    delay, ttft = figures["dispatch_delay_seconds"], figures["ttft_sent_seconds"]
    if not closed and delay is not None:
        limit = max(MAX_DELAY_SECONDS, MAX_DELAY_OF_TTFT * ttft["p50"] if ttft else 0.0)
        if delay["p99"] > limit:
            found.append(
                Finding(
                    "client_late",
                    f"the client sent 1 % of its requests {delay['p99'] * 1000:.1f} ms late or more (allowed: "
                    f"{limit * 1000:.1f} ms): it was overloaded, and so are these figures; use more --workers, or "
                    "another machine than the server's",
                    invalid=True,
                )
            )
        if late_for_a_sender:
            found.append(
                Finding(
                    "senders_exhausted",
                    f"{late_for_a_sender} requests were due while every sender was busy; raise --max-in-flight",
                    invalid=True,
                )
            )
    if not closed and window.seconds >= _SATURATION_SECONDS and falls_behind(records, window):
        found.append(
            Finding(
                "unsustained",
                "requests under way and TTFT grew throughout the window: the server does not hold this rate, "
                "and its latencies are those of a queue that grows",
                invalid=False,
            )
        )
    if foreign_cpu_share is not None and foreign_cpu_share > MOST_SHARE:
        found.append(
            Finding(
                "disturbed",
                f"something else used {foreign_cpu_share:.0%} of the machine's processors during the run",
                invalid=False,
            )
        )
    measured = figures["counts"]["measured"]
    if measured < FEW_REQUESTS:
        found.append(
            Finding(
                "few_requests",
                f"{measured} requests were measured: p99 is hardly more than their slowest",
                False,
            )
        )
    if figures["tokens_per_event"] is not None and figures["tokens_per_event"] > 1.1:
        found.append(
            Finding(
                "tokens_in_bundles",
                f"an event brings {figures['tokens_per_event']:.2f} tokens: its gaps are not between tokens",
                invalid=False,
            )
        )
    unfinished = figures["counts"]["unfinished"]
    if unfinished:
        found.append(
            Finding(
                "not_waited_for",
                f"{unfinished} requests were under way when the run's time was over: they count in tok/s alone",
                invalid=False,
            )
        )
    wrong = figures["failures"].get("wrong_length", 0)
    if wrong:
        found.append(Finding("wrong_length", f"{wrong} answers were not as long as asked for", invalid=False))
    return sorted(found, key=lambda finding: not finding.invalid)


def falls_behind(records: Sequence[Record], window: Window) -> bool:
    """Whether both the requests under way and TTFT grow with time, surely (slope above 0, p < 0.01 each).

    GuideLLM's rule for over-saturation.
    """
    due = sorted(record.scheduled_seconds for record in records if window.holds(record.scheduled_seconds))
    if len(due) < 10:
        return False
    moments = [window.start + (place + 0.5) * window.seconds / 40 for place in range(40)]
    under_way = [
        sum(r.sent_seconds <= m and (r.done_seconds is None or r.done_seconds > m) for r in records)
        for m in moments
    ]
    points = [
        (record.scheduled_seconds, record.ttft_seconds)
        for record in records
        if window.holds(record.scheduled_seconds) and record.ttft_seconds is not None
    ]
    return _grows(moments, under_way) and _grows([p[0] for p in points], [p[1] for p in points])


def _grows(times: Sequence[float], values: Sequence[float]) -> bool:
    if len(times) < 10 or max(values) == min(values):
        return False
    line = stats.linregress(times, values, alternative="greater")
    # Sure, and by enough to matter: half of the mean over the window.
    growth = line.slope * (max(times) - min(times))
    return bool(line.pvalue < _SURE and growth > 0.5 * sum(values) / len(values))
