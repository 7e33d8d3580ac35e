"""Where the time of a request goes, from when it was due to its last byte, and what of it is the gateway's own.

The client's times and the server's are of different clocks, so only durations are compared: what of the client's
TTFT is not in the server's is the way there and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.load.client.record import Record
from benchmarks.load.figures.quantiles import describe
from benchmarks.load.window import Window

# In order; together E2E.
STAGES: dict[str, str] = {
    "late": "due to sent: the client was late",
    "way": "sent to first text, less the server's own TTFT: the way there and back, and reading HTTP on both sides",
    "entry": "gateway: quota, lease of a version, review, tokenising",
    "admission": "gateway: waiting for a place in the engine",
    "engine_queue": "engine: waiting for its first step",
    "prefill": "engine: first step to first token, as the gateway sees it",
    "decode": "engine: first to last token",
    "rest": "last token to last byte, and what the client read later than the server wrote",
}
OVERHEAD = (
    "sent to last byte, less what it waited for a place and what the engine had it (way + entry + rest)"
)
_OURS = "hotswap_stage_seconds"


def stage_split(
    records: Sequence[Record], window: Window, server: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Mean seconds of each stage over answers that ended in the window, and the overhead; None: not known.

    `source` is `answers` (each answer told its own times: `overhead` is then a distribution), `gateway` or `vllm`
    (means of the server's histograms over the same time: `overhead` is a mean).
    """
    ended = [record for record in records if record.ok and window.holds(record.done_seconds)]
    told = [record for record in ended if _complete(record)]
    if told and len(told) == len(ended):
        return _by_answer(told)
    streamed = [record for record in ended if record.event_seconds]
    if not streamed:
        return None
    means = {name: fields["mean"] for name, fields in server.get("histograms", {}).items()}
    if f"{_OURS}/first_token" in means:
        inside, source = _of_gateway(means), "gateway"
    elif "vllm:request_prefill_time_seconds" in means:
        inside, source = _of_vllm(means), "vllm"
    else:
        return None
    return _by_means(streamed, inside, source)


def _complete(record: Record) -> bool:
    timing = record.server_timing
    return timing is not None and None not in [
        timing.get(f"{name}_ms") for name in ("entry", "admission", "queue", "ttft", "total")
    ]


def _by_answer(told: Sequence[Record]) -> dict[str, Any]:
    each = [_stages_of(record) for record in told]
    return {
        "source": "answers",
        "count": len(told),
        "stages": {name: _mean([one[name] for one in each]) for name in STAGES},
        "overhead_seconds": describe([one["way"] + one["entry"] + one["rest"] for one in each]),
    }


def _stages_of(record: Record) -> dict[str, float]:
    """Of one answer that told its times (milliseconds); without a stream `way` holds `rest` too."""
    timing = {name: float(value or 0.0) / 1000 for name, value in (record.server_timing or {}).items()}
    done = record.done_seconds or record.sent_seconds
    queue = max(timing["queue_ms"], timing["admission_ms"])
    after = timing["total_ms"] - timing["ttft_ms"]
    if record.event_seconds:
        way = record.event_seconds[0] - record.sent_seconds - timing["ttft_ms"]
        rest = done - record.event_seconds[0] - after
    else:
        way, rest = done - record.sent_seconds - timing["total_ms"], 0.0
    return {
        "late": record.dispatch_delay_seconds,
        "way": way,
        "entry": timing["entry_ms"],
        "admission": timing["admission_ms"],
        "engine_queue": queue - timing["admission_ms"],
        "prefill": timing["ttft_ms"] - timing["entry_ms"] - queue,
        "decode": after,
        "rest": rest,
    }


def _of_gateway(means: Mapping[str, float]) -> dict[str, float]:
    found = {name: means.get(f"{_OURS}/{name}", 0.0) for name in ("entry", "admission", "engine_queue")}
    return {
        **found,
        "prefill": means[f"{_OURS}/first_token"],
        "decode": means.get(f"{_OURS}/generation", 0.0),
    }


def _of_vllm(means: Mapping[str, float]) -> dict[str, float]:
    queue = means.get("vllm:request_queue_time_seconds", 0.0)
    prefill = means["vllm:request_prefill_time_seconds"]
    ttft = means.get("vllm:time_to_first_token_seconds", queue + prefill)
    return {
        "entry": max(0.0, ttft - queue - prefill),
        "admission": 0.0,
        "engine_queue": queue,
        "prefill": prefill,
        "decode": max(0.0, means.get("vllm:e2e_request_latency_seconds", ttft) - ttft),
    }


def _by_means(records: Sequence[Record], inside: Mapping[str, float], source: str) -> dict[str, Any]:
    sent_to_first = _mean([record.ttft_sent_seconds or 0.0 for record in records])
    first_to_done = _mean([(r.done_seconds or 0.0) - r.event_seconds[0] for r in records])
    before = sum(inside[name] for name in ("entry", "admission", "engine_queue", "prefill"))
    stages = {
        "late": _mean([record.dispatch_delay_seconds for record in records]),
        "way": round(sent_to_first - before, 6),
        **inside,
        "rest": round(first_to_done - inside["decode"], 6),
    }
    overhead = round(stages["way"] + stages["entry"] + stages["rest"], 6)
    return {
        "source": source,
        "count": len(records),
        "stages": {name: stages[name] for name in STAGES},
        "overhead_seconds": {"n": len(records), "mean": overhead},
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)
