"""What the Grafana dashboard shows: its rows of panels, and the queries behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_HERE = 'instance=~"$instance"'
_MINE = f'{_HERE}, adapter=~"$adapter"'


@dataclass(frozen=True)
class Panel:
    """One panel: (query, legend) pairs, the unit of its axis, and where it stands."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    about: str = ""


def _rate(series: str, by: str, labels: str = _HERE) -> str:
    return f"sum by ({by}) (rate({series}{{{labels}}}[$__rate_interval]))"


def _quantile(share: float, series: str, by: str = "le", labels: str = _HERE) -> str:
    rates = f"sum by ({by}) (rate({series}_bucket{{{labels}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {rates})"


def _quantiles(series: str) -> list[tuple[str, str]]:
    return [(_quantile(share, series), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


def _now(series: str, labels: str = _HERE) -> str:
    return f"sum({series}{{{labels}}})"


ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "At a glance",
        (
            Panel("Ready", [(f"min(hotswap_ready{{{_HERE}}})", "")], width=3, kind="stat"),
            Panel("Engine", [(f"min(hotswap_engine_up{{{_HERE}}})", "")], width=3, kind="stat"),
            Panel(
                "Tokens generated per second",
                [(f"sum(rate(hotswap_completion_tokens_total{{{_HERE}}}[$__rate_interval]))", "")],
                width=5,
                kind="stat",
            ),
            Panel("First token, p99", [(_quantile(0.99, "hotswap_ttft_seconds"), "")], "s", 4, "stat"),
            Panel("In flight", [(_now("hotswap_in_flight_requests"), "")], width=3, kind="stat"),
            Panel(
                "Memory peak",
                [
                    (
                        f"sum by (process) (hotswap_process_memory_peak_bytes{{{_HERE}}})",
                        "{{process}}",
                    )
                ],
                "bytes",
                6,
                "stat",
            ),
        ),
    ),
    (
        "Throughput and latency",
        (
            Panel(
                "Tokens per second",
                [
                    (f"sum(rate(hotswap_completion_tokens_total{{{_HERE}}}[$__rate_interval]))", "generated"),
                    (f"sum(rate(hotswap_prompt_tokens_total{{{_HERE}}}[$__rate_interval]))", "read"),
                ],
            ),
            Panel(
                "Requests per second, by status",
                [(_rate("hotswap_requests_total", "status"), "{{status}}")],
                "reqps",
                stacked=True,
            ),
            Panel("Whole requests", _quantiles("hotswap_request_seconds"), "s"),
            Panel("Time to first token (TTFT)", _quantiles("hotswap_ttft_seconds"), "s"),
            Panel("Time per token after the first (TPOT)", _quantiles("hotswap_tpot_seconds"), "s"),
            Panel("Waiting before the first step", _quantiles("hotswap_queue_seconds"), "s"),
            Panel(
                "Where a request's time goes, mean",
                [
                    (
                        " / ".join(
                            _rate(f"hotswap_stage_seconds_{end}", "stage") for end in ("sum", "count")
                        ),
                        "{{stage}}",
                    )
                ],
                "s",
                stacked=True,
            ),
        ),
    ),
    (
        "Queue",
        (
            Panel(
                "Running and waiting",
                [
                    (_now("hotswap_running_sequences"), "sequences in the engine"),
                    (_now("hotswap_queued_requests"), "requests waiting"),
                ],
            ),
            Panel(
                "Longest wait now", [(f"max(hotswap_queue_age_seconds{{{_HERE}}})", "longest")], "s", width=4
            ),
            Panel("Prompt tokens waiting", [(_now("hotswap_queued_tokens"), "tokens")], width=4),
            Panel(
                "Refused and ended early, per second",
                [
                    (_rate("hotswap_rejections_total", "code"), "refused: {{code}}"),
                    (_rate("hotswap_aborts_total", "reason"), "ended: {{reason}}"),
                ],
                "reqps",
            ),
        ),
    ),
    (
        "Adapter versions",
        (
            Panel(
                "Tokens generated per second, by version",
                [
                    (
                        _rate("hotswap_completion_tokens_total", "adapter, version", _MINE),
                        "{{adapter}}@{{version}}",
                    )
                ],
                stacked=True,
            ),
            Panel(
                "Requests per second, by version",
                [(_rate("hotswap_requests_total", "adapter, version", _MINE), "{{adapter}}@{{version}}")],
                "reqps",
                stacked=True,
            ),
            Panel(
                "Errors per second, by version",
                [
                    (
                        _rate("hotswap_errors_total", "adapter, version, code", _MINE),
                        "{{adapter}}@{{version}} {{code}}",
                    )
                ],
                "reqps",
            ),
            Panel(
                "First token, p95, by version",
                [
                    (
                        _quantile(0.95, "hotswap_ttft_seconds", "le, adapter, version", _MINE),
                        "{{adapter}}@{{version}}",
                    )
                ],
                "s",
            ),
            Panel(
                "Time per token, p95, by version",
                [
                    (
                        _quantile(0.95, "hotswap_tpot_seconds", "le, adapter, version", _MINE),
                        "{{adapter}}@{{version}}",
                    )
                ],
                "s",
            ),
            Panel(
                "Waiting, p95, by version",
                [
                    (
                        _quantile(0.95, "hotswap_queue_seconds", "le, adapter, version", _MINE),
                        "{{adapter}}@{{version}}",
                    )
                ],
                "s",
            ),
        ),
    ),
    (
        "Swaps, canaries, shadows",
        (
            Panel("Versions by state", [(f"sum by (state) (hotswap_adapters{{{_HERE}}})", "{{state}}")]),
            Panel(
                "Loading, p95, by phase",
                [(_quantile(0.95, "hotswap_adapter_load_seconds", "le, phase"), "{{phase}}")],
                "s",
            ),
            Panel(
                "Verbs and what became of them, in the interval",
                [
                    (
                        f"sum by (action, outcome) (increase(hotswap_events_total{{{_HERE}}}[$__rate_interval]))",
                        "{{action}} {{outcome}}",
                    )
                ],
            ),
            Panel(
                "Probes, in the interval",
                [
                    (
                        "sum by (kind, outcome) "
                        f"(increase(hotswap_adapter_probes_total{{{_HERE}}}[$__rate_interval]))",
                        "{{kind}} {{outcome}}",
                    )
                ],
            ),
            Panel(
                "Traffic plans",
                [
                    (
                        f"max by (adapter, version, kind) (hotswap_traffic_share{{{_MINE}}})",
                        "{{adapter}}@{{version}} {{kind}}",
                    ),
                    (
                        f"sum by (outcome) (increase(hotswap_canary_decisions_total{{{_HERE}}}[$__rate_interval]))",
                        "decided: {{outcome}}",
                    ),
                ],
                about="Shares of canaries and shadows, and how canaries ended.",
            ),
            Panel(
                "Shadows",
                [
                    (_rate("hotswap_shadow_requests_total", "outcome"), "{{outcome}} per second"),
                    (
                        f"sum by (result) (rate(hotswap_shadow_compared_total{{{_HERE}}}[$__rate_interval]))",
                        "{{result}} per second",
                    ),
                    (_quantile(0.5, "hotswap_shadow_agreement"), "agreement, median"),
                    (_quantile(0.95, "hotswap_shadow_ttft_seconds"), "first token, p95, seconds"),
                ],
            ),
        ),
    ),
    (
        "Engine and memory",
        (
            Panel(
                "Memory by process",
                [
                    (f"sum by (process) (hotswap_process_memory_bytes{{{_HERE}}})", "{{process}}"),
                    (f"sum by (process) (hotswap_process_memory_peak_bytes{{{_HERE}}})", "{{process}}, peak"),
                ],
                "bytes",
            ),
            Panel(
                "KV cache in use",
                [(f"max(vllm:kv_cache_usage_perc{{{_HERE}}})", "share")],
                "percentunit",
            ),
            Panel(
                "Preemptions and prefix cache",
                [
                    (
                        f"sum(rate(vllm:num_preemptions_total{{{_HERE}}}[$__rate_interval]))",
                        "preemptions per second",
                    ),
                    (
                        f"sum(rate(vllm:prefix_cache_hits_total{{{_HERE}}}[$__rate_interval])) / "
                        f"sum(rate(vllm:prefix_cache_queries_total{{{_HERE}}}[$__rate_interval]))",
                        "share of prompt tokens found in the cache",
                    ),
                ],
            ),
            Panel(
                "Engine restarts",
                [
                    (
                        f"sum by (cause) (increase(hotswap_engine_restarts_total{{{_HERE}}}[$__rate_interval]))",
                        "{{cause}}",
                    ),
                    (
                        f"sum(increase(hotswap_retried_requests_total{{{_HERE}}}[$__rate_interval]))",
                        "requests given to the next engine",
                    ),
                ],
            ),
            Panel(
                "From loss to readiness", [(_quantile(0.99, "hotswap_engine_restart_seconds"), "p99")], "s"
            ),
        ),
    ),
    (
        "Tenants and review",
        (
            Panel(
                "Tokens per second, by tenant",
                [(_rate("hotswap_tenant_tokens_total", "tenant"), "{{tenant}}")],
                stacked=True,
            ),
            Panel(
                "Requests per second, by tenant",
                [(_rate("hotswap_tenant_requests_total", "tenant"), "{{tenant}}")],
                "reqps",
                stacked=True,
            ),
            Panel(
                "Reviews per second, by outcome",
                [
                    (
                        _rate("hotswap_reviews_total", "reviewer, stage, outcome"),
                        "{{reviewer}} {{stage}} {{outcome}}",
                    )
                ],
            ),
            Panel(
                "One look of a reviewer, p95",
                [(_quantile(0.95, "hotswap_review_seconds", "le, reviewer"), "{{reviewer}}")],
                "s",
            ),
        ),
    ),
)
