"""The figures of a run, from its raw records alone. Definitions: docs/benchmarks.md, and in every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.load.client.record import Record
from benchmarks.load.figures.quantiles import describe
from benchmarks.load.figures.slo import Slo
from benchmarks.load.window import Window

DEFINITIONS: dict[str, str] = {
    "measured request": "due (in a closed loop: sent) within the window",
    "TTFT": "due to first event with text; TTFT from sending: sent to first event with text",
    "TPOT": "(last event - first event) / (tokens - 1), of answers of two tokens or more",
    "ICL": "inter-chunk latency: each gap between two events with text",
    "E2E": "due to last byte",
    "normalised latency": "E2E / tokens of the answer",
    "tok/s": "tokens whose event fell into the window / its length, whosever request it was",
    "req/s": "complete answers that ended in the window / its length",
    "goodput": "measured requests that were answered in full within the SLO / length of the window",
    "SLO attainment": "the same / measured requests; rejected and failed ones count as not good",
    "rejected": "answered 429 or 503; neither an answer nor an error",
    "unloaded": "answered 404 because the measurement had unloaded the adapter; counts for nothing else",
    "cold": "first answer of a version that was loaded during the run; all others are warm",
    "dispatch delay": "due to sent: what the client is late",
    "gateway overhead": "sent to last byte, less the wait for a place and the time that the engine had it",
    "fairness": "Jain's index over the adapters' SLO attainment; 1: all alike",
}


_NO_FAILURE = frozenset({"ok", "rejected", "cancelled", "unloaded"})


def run_figures(records: Sequence[Record], window: Window, slo: Slo) -> dict[str, Any]:
    """Everything that one run tells; latencies are of measured requests that were answered in full."""
    due = [record for record in records if window.holds(record.scheduled_seconds)]
    # Nobody knows what would have become of those that were not waited for.
    measured = [record for record in due if record.outcome != "unfinished"]
    ok = [record for record in measured if record.ok]
    good = sum(slo.good(record) for record in measured)
    tokens = sum(record.tokens_between(window.start, window.end) for record in records)
    prompt_tokens = sum(r.prompt_tokens or 0 for r in records if window.holds(_first_event(r)))
    events = sum(len(record.event_seconds) for record in ok)
    cancelled = sum(record.outcome == "cancelled" for record in measured)
    unloaded = sum(record.outcome == "unloaded" for record in measured)
    return {
        "window_seconds": round(window.seconds, 3),
        "counts": {
            "measured": len(measured),
            "ok": len(ok),
            "rejected": sum(record.outcome == "rejected" for record in measured),
            "cancelled": cancelled,
            "unloaded": unloaded,
            "unfinished": len(due) - len(measured),
            "failed": sum(record.outcome not in _NO_FAILURE for record in measured),
        },
        "failures": dict(Counter(record.failure for record in measured if record.failure is not None)),
        "offered_req_s": round(len(measured) / window.seconds, 4),
        "req_s": round(sum(r.ok and window.holds(r.done_seconds) for r in records) / window.seconds, 4),
        "output_tok_s": round(tokens / window.seconds, 2),
        "total_tok_s": round((tokens + prompt_tokens) / window.seconds, 2),
        "goodput_req_s": round(good / window.seconds, 4),
        "slo_attainment": round(good / max(1, len(measured) - cancelled - unloaded), 4),
        "ttft_seconds": describe(_known(record.ttft_seconds for record in ok)),
        "ttft_sent_seconds": describe(_known(record.ttft_sent_seconds for record in ok)),
        **_cold_and_warm(ok),
        "tpot_seconds": describe(_known(record.tpot_seconds for record in ok)),
        "icl_seconds": describe([gap for record in ok for gap in record.chunk_gaps_seconds]),
        "e2e_seconds": describe(_known(record.e2e_seconds for record in ok)),
        "normalised_seconds": describe(
            [r.e2e_seconds / r.completion_tokens for r in ok if r.e2e_seconds and r.completion_tokens]
        ),
        "rejection_seconds": describe(_known(r.e2e_seconds for r in measured if r.outcome == "rejected")),
        "retry_after_seconds": describe(_known(record.retry_after_seconds for record in measured)),
        "dispatch_delay_seconds": describe([record.dispatch_delay_seconds for record in measured]),
        "prompt_tokens": describe(_known(record.prompt_tokens for record in ok)),
        "completion_tokens": describe(_known(record.completion_tokens for record in ok)),
        "tokens_per_event": round(sum(r.completion_tokens or 0 for r in ok) / events, 3) if events else None,
    }


def reached_req_s(figures: Mapping[str, Any]) -> float:
    """Requests per second that a closed loop reached, from its `run_figures`.

    From tokens where answers were measured: workers begin and end together, and a window that is short beside an
    answer holds one batch of them more or less.
    """
    lengths = figures["completion_tokens"]
    return float(figures["output_tok_s"] / lengths["mean"] if lengths is not None else figures["req_s"])


def adapter_figures(records: Sequence[Record], window: Window, slo: Slo) -> dict[str, dict[str, Any]]:
    """The same by adapter, shorter; `base` is the base. First come those that were asked most."""
    by_adapter: dict[str, list[Record]] = {}
    for record in records:
        if window.holds(record.scheduled_seconds) and record.outcome != "unfinished":
            by_adapter.setdefault(record.adapter or "base", []).append(record)
    found = {}
    for name, measured in sorted(by_adapter.items(), key=lambda item: (-len(item[1]), item[0])):
        ok = [record for record in measured if record.ok]
        found[name] = {
            "measured": len(measured),
            "ok": len(ok),
            "slo_attainment": round(
                sum(slo.good(record) for record in measured)
                / max(1, sum(record.outcome != "unloaded" for record in measured)),
                4,
            ),
            "ttft_seconds": describe(_known(record.ttft_seconds for record in ok)),
            **_cold_and_warm(ok),
            "tpot_seconds": describe(_known(record.tpot_seconds for record in ok)),
            "versions": sorted({record.version for record in ok if record.version}),
        }
    return found


def _cold_and_warm(ok: Sequence[Record]) -> dict[str, Any]:
    """TTFT of the first answers of versions loaded during the run, and of all others; None each without one."""
    cold = _known(record.ttft_seconds for record in ok if record.cold)
    warm = _known(record.ttft_seconds for record in ok if not record.cold) if cold else []
    return {"cold_ttft_seconds": describe(cold), "warm_ttft_seconds": describe(warm)}


def fairness(adapters: dict[str, dict[str, Any]]) -> float | None:
    """Jain's index over the adapters' SLO attainment (R. Jain et al., DEC-TR-301, 1984); None without any."""
    shares: list[float] = [fields["slo_attainment"] for name, fields in adapters.items() if name != "base"]
    squares = sum(share * share for share in shares)
    if not shares or not squares:
        return None
    return round(sum(shares) ** 2 / (len(shares) * squares), 4)


def timeline(records: Sequence[Record], seconds: float, step_seconds: float = 1.0) -> list[dict[str, float]]:
    """What happened in each step of the whole run, warm-up included."""
    steps = max(1, int(seconds / step_seconds))
    rows = [
        {
            "at": round(place * step_seconds, 3),
            "due": 0.0,
            "ok": 0.0,
            "rejected": 0.0,
            "failed": 0.0,
            "tokens": 0.0,
        }
        for place in range(steps)
    ]

    def at(moment: float | None) -> dict[str, float] | None:
        place = -1 if moment is None else int(moment / step_seconds)
        return rows[place] if 0 <= place < steps else None

    for record in records:
        if (row := at(record.scheduled_seconds)) is not None:
            row["due"] += 1
        if (row := at(record.done_seconds)) is not None:
            kind = record.outcome if record.outcome in ("ok", "rejected") else "failed"
            if record.outcome not in ("cancelled", "unfinished", "unloaded"):
                row[kind] += 1
        each = (record.completion_tokens or 0) / len(record.event_seconds) if record.event_seconds else 0.0
        for moment in record.event_seconds:
            if (row := at(moment)) is not None:
                row["tokens"] += each or 1.0
    _add_in_flight(rows, records, step_seconds)
    return rows


def _add_in_flight(rows: list[dict[str, float]], records: Sequence[Record], step_seconds: float) -> None:
    for place, row in enumerate(rows):
        middle = (place + 0.5) * step_seconds
        row["in_flight"] = float(
            sum(
                record.sent_seconds <= middle
                and (record.done_seconds is None or record.done_seconds > middle)
                for record in records
            )
        )
        row["tokens"] = round(row["tokens"], 2)


def _first_event(record: Record) -> float | None:
    return record.event_seconds[0] if record.event_seconds else record.done_seconds


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
