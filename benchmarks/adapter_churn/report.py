"""The result for people, as Markdown: on the terminal, and as an entry for benchmarks/LOG.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from benchmarks.adapter_churn.plan import Plan
from benchmarks.adapter_churn.processes import Growth, Look, growth
from benchmarks.load.client.record import Record
from benchmarks.load.verbs import Verb
from benchmarks.statistics import percentile
from benchmarks.surroundings import Surroundings

LIST_TARGET_SECONDS = 0.050  # p99 of GET /admin/adapters
KEPT_SHARE_TARGET = 0.01  # of a process, kept for a thousand new versions at most
SETTLING_SHARE = 1 / 3  # of the time, before memory is judged: caches and pools fill first
_SERIES = (
    ("gateway, MiB", "gateway_mib"),
    ("engine, MiB", "engine_mib"),
    ("helpers, MiB", "helper_mib"),
    ("open files", "files"),
    ("threads", "threads"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that a run brought."""

    registration: Sequence[Verb]
    verbs: Sequence[Verb]
    looks: Sequence[Look]
    records: Sequence[Record]

    @property
    def errors(self) -> list[str]:
        """What failed, each with its number."""
        told = Counter(verb.error for verb in (*self.registration, *self.verbs) if verb.error is not None)
        told.update(record.failure for record in self.records if record.failure is not None)
        return [f"{count} x {error}" for error, count in told.most_common()]

    @property
    def settled(self) -> Sequence[Look]:
        """The looks that are judged."""
        return self.looks[int(len(self.looks) * SETTLING_SHARE) :]

    @property
    def versions_per_hour(self) -> float:
        """New versions that came while the processes were judged."""
        settled = self.settled
        if len(settled) < 2:
            return 0.0
        begin, end = settled[0].at_seconds, settled[-1].at_seconds
        new = [v for v in self.verbs if v.kind in ("load", "replace") and v.error is None]
        return 3600.0 * sum(begin <= verb.end_seconds <= end for verb in new) / (end - begin)

    def trend(self, series: str, part: slice = slice(None)) -> Growth | None:
        """How one series went after settling, or in a part of that time; None with too few samples."""
        judged = self.settled[part]
        try:
            return growth([one.at_seconds for one in judged], [getattr(one, series) for one in judged])
        except ValueError:
            return None


def markdown(
    outcome: Outcome, plan: Plan, *, engine: str, started: datetime, command: str, surroundings: Surroundings
) -> str:
    """The whole entry."""
    answered = [record for record in outcome.records if record.ok]
    ttft = [r.ttft_seconds for r in answered if r.ttft_seconds is not None]
    asked = len({record.adapter for record in answered})
    lines = [
        f"## {started:%Y-%m-%d}: adapter churn",
        "",
        f"`{command}`",
        "",
        surroundings.line() + ".",
        "",
        f"{engine}; {plan.registered} registered adapters of rank {plan.rank}, {plan.active} asked in turns by "
        f"{plan.concurrency} workers (closed loop, {plan.prompt_words} words, {plan.max_tokens} tokens), a verb "
        f"every {plan.churn_seconds:g} s for {plan.minutes:g} minutes.",
        "",
        f"{len(answered)} of {len(outcome.records)} requests answered, by {asked} adapters"
        + (
            f"; TTFT p50 {1000 * percentile(ttft, 0.5):.0f} ms, p99 {1000 * percentile(ttft, 0.99):.0f} ms."
            if ttft
            else "."
        ),
        "",
        "| verb | number | p50 ms | p99 ms | most ms |",
        "| --- | --- | --- | --- | --- |",
        *_verb_rows(outcome),
        "",
        f"Processes (files' pages left out), every {plan.sample_seconds:g} s, after the first third of the time:",
        "",
        "| | at first | at last | slope per hour (95 %) | |",
        "| --- | --- | --- | --- | --- |",
        *_series_rows(outcome),
        "",
        '"Grows": the whole interval of the slope is above a ten-thousandth of the first value per hour.',
        "",
        *(f"- {line}" for line in verdicts(outcome)),
        "",
    ]
    return "\n".join(lines)


def _verb_rows(outcome: Outcome) -> list[str]:
    rows = []
    kinds = {"register": outcome.registration} | {
        kind: [verb for verb in outcome.verbs if verb.kind == kind]
        for kind in ("load", "replace", "unload", "list", "models")
    }
    for kind, verbs in kinds.items():
        values = [verb.seconds for verb in verbs if verb.error is None]
        if values:
            cells = (percentile(values, 0.5), percentile(values, 0.99), max(values))
            shown = " | ".join(f"{1000 * value:.1f}" for value in cells)
            rows.append(f"| {kind} | {len(values)} | {shown} |")
    return rows


def _series_rows(outcome: Outcome) -> list[str]:
    rows = []
    for title, series in _SERIES:
        trend = outcome.trend(series)
        if trend is not None:
            slope = f"{trend.per_hour:+.1f} ({trend.low:+.1f} to {trend.high:+.1f})"
            rows.append(f"| {title} | {trend.first:.1f} | {trend.last:.1f} | {slope} | {trend.told} |")
    return rows


def verdicts(outcome: Outcome) -> list[str]:
    """What was to be shown, as it came out."""
    listed = [verb.seconds for verb in outcome.verbs if verb.kind == "list" and verb.error is None]
    lines = []
    if listed:
        p99 = percentile(listed, 0.99)
        lines.append(
            f"list in less than {1000 * LIST_TARGET_SECONDS:g} ms: "
            f"{'met' if p99 < LIST_TARGET_SECONDS else 'MISSED'} (p99 {1000 * p99:.1f} ms)"
        )
    lines += [_memory_verdict(outcome, title.partition(",")[0], series) for title, series in _SERIES[:3]]
    lines.append(f"failures: {'; '.join(outcome.errors[:5]) or 'none'}")
    return lines


def _memory_verdict(outcome: Outcome, process: str, series: str) -> str:
    """No growth is said where the interval of the slope holds zero. Where it does not: what is kept for a version,
    against a bound, and whether it was less in the second half of the time."""
    trend, per_hour = outcome.trend(series), outcome.versions_per_hour
    if trend is None or not per_hour:
        return f"memory of the {process}: too short to tell"
    if trend.told != "grows":
        return f"memory of the {process}: {trend.told}"
    kib = [1024.0 * slope / per_hour for slope in (trend.per_hour, trend.low, trend.high)]
    share = trend.share_kept(per_hour)
    half = len(outcome.settled) // 2
    halves = [outcome.trend(series, part) for part in (slice(half), slice(half, None))]
    slopes = " and ".join(f"{one.per_hour:+.1f}" for one in halves if one is not None)
    return (
        f"memory of the {process}: grows, by {kib[0]:.1f} KiB ({kib[1]:.1f} to {kib[2]:.1f}) for each new version; "
        f"at most {100 * KEPT_SHARE_TARGET:g} % for a thousand: "
        f"{'met' if share <= KEPT_SHARE_TARGET else 'MISSED'} ({100 * share:.2f} %)"
        + (f"; {slopes} MiB per hour in the first and second half" if slopes else "")
    )
