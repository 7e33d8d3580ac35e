"""What the server told of itself while load ran: its `/metrics` over the window, ours, vLLM's or llama.cpp's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load.figures.scraper import Scrape

# What is shown -> series that tell it, the first that a server has; samples of several labels are summed.
GAUGES: dict[str, tuple[str, ...]] = {
    "running": (
        "vllm:num_requests_running",
        "hotswap_running_sequences",
        "llamacpp:requests_processing",
    ),
    "waiting_in_gateway": ("hotswap_queued_requests",),
    "waiting_in_engine": ("vllm:num_requests_waiting", "llamacpp:requests_deferred"),
    "kv_cache_usage": ("vllm:kv_cache_usage_perc", "llamacpp:kv_cache_usage_ratio"),
}
COUNTERS: dict[str, tuple[str, ...]] = {
    "requests": ("hotswap_requests_total", "vllm:request_success_total"),
    "rejections": ("hotswap_rejections_total",),
    "errors": ("hotswap_errors_total",),
    "aborts": ("hotswap_aborts_total",),
    "prompt_tokens": (
        "vllm:prompt_tokens_total",
        "hotswap_prompt_tokens_total",
        "llamacpp:prompt_tokens_total",
    ),
    "completion_tokens": (
        "vllm:generation_tokens_total",
        "hotswap_completion_tokens_total",
        "llamacpp:tokens_predicted_total",
    ),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_cache_queries": ("vllm:prefix_cache_queries_total",),
    "prefix_cache_hits": ("vllm:prefix_cache_hits_total",),
}
# Of these the mean over the window is taken, by the label `stage` where there is one.
HISTOGRAMS = (
    "hotswap_stage_seconds",
    "vllm:time_to_first_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds",
)
_BY_VERSION = {
    "requests": "hotswap_requests_total",
    "prompt_tokens": "hotswap_prompt_tokens_total",
    "completion_tokens": "hotswap_completion_tokens_total",
    "errors": "hotswap_errors_total",
}
_MEMORY = "hotswap_process_memory_bytes"
_MEMORY_OF_OTHERS = "process_resident_memory_bytes"
_REJECTIONS = "hotswap_rejections_total"

WANTED: tuple[str, ...] = (
    *(name for names in (*GAUGES.values(), *COUNTERS.values()) for name in names),
    *(f"{name}_{end}" for name in HISTOGRAMS for end in ("sum", "count")),
    _MEMORY,
    _MEMORY_OF_OTHERS,
)

_Series = tuple[str, frozenset[tuple[str, str]]]
_Samples = Mapping[_Series, float]


def server_figures(scrapes: Sequence[Scrape], reason: str | None = None) -> dict[str, Any]:
    """Means of what goes up and down, growth of what is counted, over the time from the first scrape to the last.

    `reason` says why there are none, or not all; with fewer than two scrapes there is nothing else.
    """
    read = [(scrape, _samples(scrape)) for scrape in scrapes]
    read = [(scrape, samples) for scrape, samples in read if samples]
    if len(read) < 2:
        return {"reason": reason or "it holds no series that is known here"}
    first, last = read[0][0], read[-1][0]
    growth = _growth([samples for _, samples in read])
    series = [_moment(scrape, samples) for scrape, samples in read]
    for before, after in itertools.pairwise(series):
        seconds = max(1e-9, after["at"] - before["at"])
        if "completion_tokens" in after and "completion_tokens" in before:
            after["tokens_per_second"] = round(
                max(0.0, after["completion_tokens"] - before["completion_tokens"]) / seconds, 2
            )
    return {
        "reason": reason,
        "scrapes": len(read),
        "scrape_seconds": round(sum(scrape.took_seconds for scrape, _ in read) / len(read), 4),
        "seconds": round(last.at_seconds - first.at_seconds, 3),
        "gauges": _gauges(series),
        "counters": _counters(growth),
        "rejections": _by_label(growth, _REJECTIONS, "code"),
        "versions": _versions(growth),
        "histograms": _means(growth),
        "series": series,
    }


def _samples(scrape: Scrape) -> dict[_Series, float]:
    try:
        families = list(text_string_to_metric_families("\n".join(scrape.lines) + "\n"))
    except ValueError:
        return {}
    return {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in families
        for sample in family.samples
    }


def _growth(read: Sequence[_Samples]) -> dict[_Series, float]:
    """By how much each series grew. One that became less began anew at 0, as where an engine was started again."""
    found: dict[_Series, float] = {}
    for before, after in itertools.pairwise(read):
        for series, value in after.items():
            since = before.get(series, 0.0)
            found[series] = found.get(series, 0.0) + (value - since if value >= since else value)
    return found


def _moment(scrape: Scrape, samples: _Samples) -> dict[str, float]:
    row = {"at": round(scrape.at_seconds, 3)}
    for name, names in {**GAUGES, "completion_tokens": COUNTERS["completion_tokens"]}.items():
        value = _total(samples, names)
        if value is not None:
            row[name] = value
    memory = _by_label(samples, _MEMORY, "process")
    if not memory and (own := _total(samples, (_MEMORY_OF_OTHERS,))) is not None:
        memory = {"server": own}
    return row | {f"memory_{process}_bytes": value for process, value in memory.items()}


def _gauges(series: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    names = dict.fromkeys(name for row in series for name in row)
    found = {}
    for name in names:
        if name in ("at", "completion_tokens", "tokens_per_second"):
            continue
        values = [row[name] for row in series if name in row]
        found[name] = {"mean": round(sum(values) / len(values), 4), "max": max(values)}
    return found


def _counters(growth: _Samples) -> dict[str, float]:
    """A counter with labels has no series before its first event: of our gateway its absence is 0."""
    ours = any(name.startswith("hotswap_") for name, _ in growth)
    found = {}
    for short, names in COUNTERS.items():
        total = _total(growth, names)
        if total is not None:
            found[short] = total
        elif ours and names[0].startswith("hotswap_"):
            found[short] = 0.0
    return found


def _total(samples: _Samples, names: Sequence[str]) -> float | None:
    for wanted in names:
        values = [value for (name, _), value in samples.items() if name == wanted]
        if values:
            return round(sum(values), 4)
    return None


def _by_label(samples: _Samples, wanted: str, label: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for (name, labels), value in samples.items():
        if name == wanted and value:
            key = dict(labels).get(label, "")
            found[key] = round(found.get(key, 0.0) + value, 4)
    return found


def _versions(growth: _Samples) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for short, wanted in _BY_VERSION.items():
        for (name, labels), value in growth.items():
            if name == wanted and value:
                of = dict(labels)
                version = "@".join(part for part in (of.get("adapter"), of.get("version")) if part) or "base"
                counts = found.setdefault(version, {})
                counts[short] = round(counts.get(short, 0.0) + value, 4)
    return dict(sorted(found.items(), key=lambda item: -item[1].get("requests", 0.0)))


def _means(growth: _Samples) -> dict[str, dict[str, float]]:
    """Name, or name and stage -> how many and their mean in seconds."""
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for (name, labels), value in growth.items():
        stem, _, end = name.rpartition("_")
        if stem in HISTOGRAMS and end in ("sum", "count"):
            stage = dict(labels).get("stage")
            key = stem if stage is None else f"{stem}/{stage}"
            into = sums if end == "sum" else counts
            into[key] = into.get(key, 0.0) + value
    return {
        name: {"count": count, "mean": round(sums.get(name, 0.0) / count, 6)}
        for name, count in counts.items()
        if count
    }
