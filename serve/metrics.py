"""The gateway's own Prometheus metrics (`hotswap_*`), in a registry of their own.

The label `adapter` only ever holds names of known adapters, `base` or `unknown`, so that a client cannot make
series without end. vLLM's metrics live in prometheus_client's default registry and are exposed beside these.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BASE_LABEL = "base"
UNKNOWN_LABEL = "unknown"

_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_LOG_ODDS = (0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)


class GatewayMetrics:
    """Every series the gateway writes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "hotswap_requests",
            "Requests answered, by route, adapter and HTTP status.",
            ["route", "adapter", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "hotswap_request_seconds",
            "Request to last byte, seconds.",
            ["route", "adapter"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "hotswap_queue_seconds",
            "Waiting in the gateway and in the engine before the first step, seconds.",
            ["adapter"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.ttft_seconds = Histogram(
            "hotswap_ttft_seconds",
            "Request to first generated token (TTFT), seconds.",
            ["adapter"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.tpot_seconds = Histogram(
            "hotswap_tpot_seconds",
            "Seconds per generated token after the first (TPOT), answers of two tokens or more.",
            ["adapter"],
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "hotswap_prompt_tokens", "Prompt tokens of answered requests.", ["adapter"], registry=registry
        )
        self.completion_tokens = Counter(
            "hotswap_completion_tokens", "Tokens generated.", ["adapter"], registry=registry
        )
        self.aborts = Counter(
            "hotswap_aborts",
            "Requests ended before their time: by the client, the deadline, or the server (drain, unload).",
            ["reason"],
            registry=registry,
        )
        self.rejections = Counter(
            "hotswap_rejections", "Requests refused before the engine saw them.", ["code"], registry=registry
        )
        self.in_flight = Gauge(
            "hotswap_in_flight_requests", "Requests running or waiting.", registry=registry
        )
        self.running = Gauge(
            "hotswap_running_sequences", "Sequences handed to the engine.", registry=registry
        )
        self.queued = Gauge("hotswap_queued_requests", "Requests waiting in the gateway.", registry=registry)
        self.queued_tokens = Gauge(
            "hotswap_queued_tokens", "Prompt tokens waiting in the gateway.", registry=registry
        )
        self.adapters = Gauge("hotswap_adapters", "Adapter versions by state.", ["state"], registry=registry)
        self.adapter_transitions = Counter(
            "hotswap_adapter_transitions",
            "Steps of adapters' lives, by state reached.",
            ["state"],
            registry=registry,
        )
        self.adapter_load_seconds = Histogram(
            "hotswap_adapter_load_seconds",
            "Loading one adapter, by phase: check, store, load, probe, total; seconds.",
            ["phase"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.adapter_probes = Counter(
            "hotswap_adapter_probes",
            "Probes of loaded adapters, by kind (replay, effect) and outcome (passed, or the cause of refusal).",
            ["kind", "outcome"],
            registry=registry,
        )
        self.adapter_probe_difference = Histogram(
            "hotswap_adapter_probe_difference",
            "Replayed probes: how far the adapter's log-odds are from the training's, root mean square.",
            buckets=_LOG_ODDS,
            registry=registry,
        )
        self.ready = Gauge("hotswap_ready", "1 when new work is taken.", registry=registry)
        self._known: set[str] = set()

    def known_adapters(self, names: Iterable[str]) -> None:
        """Names that may appear in the label `adapter`; series of names that went are dropped."""
        names = set(names)
        for gone in self._known - names:
            for family in (self.queue_seconds, self.ttft_seconds, self.tpot_seconds):
                family.remove_by_labels({"adapter": gone})
            for counter in (self.requests, self.prompt_tokens, self.completion_tokens):
                counter.remove_by_labels({"adapter": gone})
            self.request_seconds.remove_by_labels({"adapter": gone})
        self._known = names

    def adapter_label(self, name: str | None) -> str:
        """The label for an adapter alias; None is the base."""
        if name is None:
            return BASE_LABEL
        return name if name in self._known else UNKNOWN_LABEL

    def render(self) -> bytes:
        """All series, ours and vLLM's, in Prometheus text format."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)
