"""The gateway's own Prometheus metrics (`hotswap_*`), in a registry of their own.

The labels `adapter` and `version` only ever hold versions that hold a lease, `base`, `unknown` or `other`
(version_labels.py), so that a client cannot make series without end. docs/observability.md describes every series,
and a test compares the two. vLLM's own metrics live in the default registry and are exposed beside these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from adapters.registry.records import Event
from serve.observability.process_memory import ProcessMemory
from serve.observability.version_labels import OTHER_LABEL, UNKNOWN_LABEL, Pair, VersionLabels

DEFAULT_MAX_VERSIONS = 200
MAX_TENANTS = 50
NO_TENANT = "none"  # callers without a key, and the admin
_COUNTED_ELSEWHERE = frozenset({"state", "review"})

_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_SECONDS = (0.0005, 0.001, 0.0025, *_LATENCY_SECONDS)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_RESTART_SECONDS = (1, 2.5, 5, 10, 20, 40, 60, 90, 120, 180, 300, 600)
_REVIEW_SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
_SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
_LOG_ODDS = (0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)


class GatewayMetrics:
    """Every series the gateway writes. At most `max_versions` adapter versions have series of their own."""

    def __init__(self, *, max_versions: int = DEFAULT_MAX_VERSIONS) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "hotswap_requests",
            "Requests answered, by route, adapter version and HTTP status.",
            ["route", "adapter", "version", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "hotswap_request_seconds",
            "Request to last byte, seconds.",
            ["route", "adapter", "version"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "hotswap_queue_seconds",
            "Waiting in the gateway and in the engine before the first step, seconds.",
            ["adapter", "version"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "hotswap_stage_seconds",
            "Where the time of answered requests goes: entry (quota, lease, review, tokens), admission, "
            "engine_queue, first_token, generation, send; together hotswap_request_seconds.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self.ttft_seconds = Histogram(
            "hotswap_ttft_seconds",
            "Request to first generated token (TTFT), seconds.",
            ["adapter", "version"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.tpot_seconds = Histogram(
            "hotswap_tpot_seconds",
            "Seconds per generated token after the first (TPOT), answers of two tokens or more.",
            ["adapter", "version"],
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "hotswap_prompt_tokens",
            "Prompt tokens of answered requests.",
            ["adapter", "version"],
            registry=registry,
        )
        self.completion_tokens = Counter(
            "hotswap_completion_tokens", "Tokens generated.", ["adapter", "version"], registry=registry
        )
        self.errors = Counter(
            "hotswap_errors",
            "Requests that ended with an error, by adapter version and code; begun streams too.",
            ["adapter", "version", "code"],
            registry=registry,
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
            "One version's way in and out, by phase: check, store or verify, load, probe, total; retire; seconds.",
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
        self.events = Counter(
            "hotswap_events",
            "Things done: verbs on adapters, keys and the engine, by action and outcome (done, or an error code).",
            ["action", "outcome"],
            registry=registry,
        )
        self.traffic_share = Gauge(
            "hotswap_traffic_share",
            "Share of an alias' requests that each version of a traffic plan is to get, 0 to 1.",
            ["adapter", "version", "kind"],
            registry=registry,
        )
        self.canary_decisions = Counter(
            "hotswap_canary_decisions",
            "Canaries decided on: promoted, or the fault they were taken back for (error_rate, ttft, probe).",
            ["outcome"],
            registry=registry,
        )
        self.shadow_requests = Counter(
            "hotswap_shadow_requests",
            "Mirrored requests, by how they ended: done, failed, dropped (no room), or cut off.",
            ["adapter", "version", "outcome"],
            registry=registry,
        )
        self.shadow_ttft_seconds = Histogram(
            "hotswap_shadow_ttft_seconds",
            "Mirrored requests: first generated token of the shadow, seconds.",
            ["adapter", "version"],
            buckets=_LATENCY_SECONDS,
            registry=registry,
        )
        self.shadow_compared = Counter(
            "hotswap_shadow_compared",
            "Mirrored greedy requests that were answered, by result: equal to the live answer, or different.",
            ["adapter", "version", "result"],
            registry=registry,
        )
        self.shadow_agreement = Histogram(
            "hotswap_shadow_agreement",
            "Mirrored greedy requests: share of the longer answer up to the first difference from the live one.",
            ["adapter", "version"],
            buckets=_SHARES,
            registry=registry,
        )
        self.engine_up = Gauge(
            "hotswap_engine_up", "1 while the engine answers, 0 while it is dead or hangs.", registry=registry
        )
        self.engine_restarts = Counter(
            "hotswap_engine_restarts", "Engines started again, by cause.", ["cause"], registry=registry
        )
        self.engine_restart_seconds = Histogram(
            "hotswap_engine_restart_seconds",
            "From noticing the loss of an engine to readiness with all adapters, seconds.",
            buckets=_RESTART_SECONDS,
            registry=registry,
        )
        self.retried_requests = Counter(
            "hotswap_retried_requests",
            "Requests that had sent nothing when their engine went, and were given to the next one.",
            registry=registry,
        )
        self.queue_age_seconds = Gauge(
            "hotswap_queue_age_seconds",
            "How long the request that waits longest has waited in the gateway, seconds.",
            registry=registry,
        )
        self.tenant_requests = Counter(
            "hotswap_tenant_requests",
            "Requests by tenant; the first tenants get a series, all others share `other`.",
            ["tenant"],
            registry=registry,
        )
        self.tenant_tokens = Counter(
            "hotswap_tenant_tokens",
            "Tokens by tenant, prompt and answer together.",
            ["tenant"],
            registry=registry,
        )
        self.reviews = Counter(
            "hotswap_reviews",
            "Texts reviewed, by reviewer, stage (prompt, answer) and outcome (passed, flagged, redacted, refused, "
            "failed).",
            ["reviewer", "stage", "outcome"],
            registry=registry,
        )
        self.review_seconds = Histogram(
            "hotswap_review_seconds",
            "One look of a reviewer at a text, seconds.",
            ["reviewer"],
            buckets=_REVIEW_SECONDS,
            registry=registry,
        )
        self.ready = Gauge("hotswap_ready", "1 when new work is taken.", registry=registry)
        registry.register(ProcessMemory())
        self.labels = VersionLabels(max_versions, self._drop)
        self._tenants: set[str] = set()

    def known_adapters(self, names: Iterable[str]) -> None:
        """Series of all other adapters are dropped."""
        self.labels.keep_adapters(set(names))

    def known_versions(self, versions: Collection[str]) -> None:
        """Series of all versions but these ("risk@3f2a91c0") are dropped."""
        self.labels.keep(versions)

    def version_left(self, version: str) -> None:
        """Drop the series of a version ("risk@3f2a91c0") that is gone."""
        self.labels.drop(version)

    def pair(self, version: str | None, *, resolved: bool = True) -> Pair:
        """Labels `adapter` and `version` of the version that holds a lease, or of a request that got none."""
        return self.labels.pair(version) if resolved else (UNKNOWN_LABEL, "")

    def tenant(self, name: str) -> str:
        """Label for a tenant: its name for the first MAX_TENANTS that ask, `other` for the rest."""
        name = name or NO_TENANT
        if name in self._tenants or len(self._tenants) < MAX_TENANTS:
            self._tenants.add(name)
            return name
        return OTHER_LABEL

    def note_event(self, event: Event) -> None:
        """Count an event of the audit log. Steps of versions and reviews have series of their own."""
        if event.action.replace("_", "").isalpha() and event.action not in _COUNTED_ELSEWHERE:
            self.events.labels(event.action, event.outcome).inc()

    def _drop(self, pair: Pair) -> None:
        labels = dict(zip(("adapter", "version"), pair, strict=True))
        for family in (
            self.requests,
            self.request_seconds,
            self.queue_seconds,
            self.ttft_seconds,
            self.tpot_seconds,
            self.prompt_tokens,
            self.completion_tokens,
            self.errors,
            self.shadow_requests,
            self.shadow_ttft_seconds,
            self.shadow_compared,
            self.shadow_agreement,
        ):
            family.remove_by_labels(labels)

    def render(self) -> bytes:
        """All series, ours and vLLM's, in Prometheus text format. Thread-safe."""
        return generate_latest(_WithoutCreated(self.registry)) + generate_latest(REGISTRY)


class _WithoutCreated(Collector):
    """A registry without the `_created` series, which nobody asks and which are a tenth of the text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [s for s in family.samples if not s.name.endswith("_created")]
            yield family
