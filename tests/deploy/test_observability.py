"""Dashboard, alerts and their page name series that there are, and describe every one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from scripts.grafana_dashboard import PAGE as DASHBOARD
from scripts.grafana_dashboard import page as dashboard_page
from serve.observability.metrics import GatewayMetrics

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
OBSERVABILITY = (REPOSITORY / "docs" / "observability.md").read_text(encoding="utf-8")
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
# vLLM's own, of vllm/v1/metrics/loggers.py.
VLLM = {
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
}


def families() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Name in /metrics -> kind, labels, description."""
    metrics = GatewayMetrics()
    labels = {
        made._name: tuple(made._labelnames)
        for made in vars(metrics).values()
        if isinstance(made, MetricWrapperBase)
    }
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            labels.get(family.name, ("process",)),
            family.documentation,
        )
        for family in metrics.registry.collect()
    }


def series() -> dict[str, set[str]]:
    """Every name that can be asked for -> its labels."""
    found: dict[str, set[str]] = {}
    for name, (kind, labels, _) in families().items():
        ends = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        for end in ends:
            found[name + end] = {*labels, "instance", "job", *(["le"] if end == "_bucket" else [])}
    return found


def queries() -> list[tuple[str, str]]:
    """(where, query) of every panel and alert."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = [
        (str(panel["title"]), str(target["expr"]))
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]
    alerts = [(str(rule["alert"]), str(rule["expr"])) for rule in rules()]
    return panels + alerts


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(("where", "query"), queries())
def test_every_query_asks_for_series_and_labels_that_there_are(where: str, query: str) -> None:
    known = series()
    selectors = re.findall(r"\b((?:hotswap_|vllm:)\w+)(?:\{([^}]*)\})?", query)
    assert selectors or "up{" in query
    for name, matchers in selectors:
        assert name in known or name in VLLM, f"{where}: {name} is not a series"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        allowed = known.get(name, {"instance", "job", "model_name", "engine"})
        assert labels <= allowed, f"{where}: {name} has no {labels - allowed}"
    grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", query) for label in by.split(",")}
    of_all = set().union(*(known.get(name, set()) | {"instance"} for name, _ in selectors))
    assert grouped <= of_all, f"{where}: grouped by {grouped - of_all}"


def test_vllm_has_the_series_that_are_asked_for() -> None:
    vllm = pytest.importorskip("vllm")
    source = (Path(vllm.__file__).parent / "v1" / "metrics" / "loggers.py").read_text(encoding="utf-8")
    for name in VLLM:
        assert f'name="{name.removesuffix("_total")}"' in source


def test_the_page_describes_every_series_as_the_code_does() -> None:
    rows = {
        f"| `{name}` | {kind} | {', '.join(labels)} | {text} |"
        for name, (kind, labels, text) in families().items()
    }
    told = {line for line in OBSERVABILITY.splitlines() if line.startswith("| `hotswap_")}
    assert told == rows


def test_the_page_names_every_alert() -> None:
    assert set(re.findall(r"`(Hotswap\w+)`", OBSERVABILITY)) == {rule["alert"] for rule in rules()}


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_alerts_tests_name_alerts_that_there_are() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts.test.yml").read_text(encoding="utf-8"))
    names = {case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"]}
    assert names <= {rule["alert"] for rule in rules()}
    assert tests["rule_files"] == ["alerts.yml"]


def test_the_dashboard_is_what_its_panels_say() -> None:
    assert DASHBOARD.read_text(encoding="utf-8") == dashboard_page(), (
        "run `python -m scripts.grafana_dashboard`"
    )


def test_panels_have_ids_of_their_own_and_lie_beside_each_other() -> None:
    panels = json.loads(dashboard_page())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_series_of_ours_is_on_the_dashboard_or_in_an_alert() -> None:
    asked = " ".join(query for _, query in queries())
    left_out = {"hotswap_adapter_transitions_total", "hotswap_adapter_probe_difference"}
    for name in families():
        assert name in asked or name in left_out, f"nobody looks at {name}"
