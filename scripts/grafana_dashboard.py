"""Writes deploy/grafana/dashboard.json from the panels below: `python -m scripts.grafana_dashboard`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "dashboard.json"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_HERE = 'instance=~"$instance"'
_MINE = f'{_HERE}, adapter=~"$adapter"'
_WIDTH, _HEIGHT = 24, 8


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


def dashboard() -> dict[str, Any]:
    """The whole dashboard."""
    return {
        "title": "Hotswap",
        "uid": "hotswap",
        "tags": ["hotswap", "llm"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_data_source(), _variable("instance", "hotswap_ready"), _adapters()]},
        "panels": list(_panels()),
    }


def _panels() -> Iterator[dict[str, Any]]:
    number, y = 1, 0
    for title, panels in ROWS:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
        }
        number, y, x = number + 1, y + 1, 0
        height = 4 if all(panel.kind == "stat" for panel in panels) else _HEIGHT
        for panel in panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": height})
            number, x = number + 1, x + panel.width
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal"}} if panel.stacked else {"fillOpacity": 5}
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "timeseries":
        made["fieldConfig"]["defaults"]["custom"] = custom
    return made


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def _variable(label: str, series: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({series}, {label})",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _adapters() -> dict[str, Any]:
    return {**_variable("adapter", "hotswap_requests_total"), "allValue": ".*"}


def page() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
