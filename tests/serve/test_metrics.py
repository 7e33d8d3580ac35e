"""Series without end are impossible, and series of an adapter go with it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import GatewayMetrics

PER_ADAPTER = (
    "requests",
    "request_seconds",
    "queue_seconds",
    "ttft_seconds",
    "tpot_seconds",
    "prompt_tokens",
    "completion_tokens",
)


def touch_all(metrics: GatewayMetrics, adapter: str) -> None:
    metrics.requests.labels("/generate", adapter, "200").inc()
    metrics.request_seconds.labels("/generate", adapter).observe(1)
    for family in (metrics.queue_seconds, metrics.ttft_seconds, metrics.tpot_seconds):
        family.labels(adapter).observe(0.01)
    metrics.prompt_tokens.labels(adapter).inc(3)
    metrics.completion_tokens.labels(adapter).inc(4)


def labels_of(metrics: GatewayMetrics) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        adapters = {sample.labels["adapter"] for sample in family.samples if "adapter" in sample.labels}
        if adapters:
            found[family.name.removeprefix("hotswap_")] = adapters
    return found


def test_only_known_names_become_labels() -> None:
    metrics = GatewayMetrics()
    metrics.known_adapters(["risk"])
    assert metrics.adapter_label(None) == "base"
    assert metrics.adapter_label("risk") == "risk"
    for number in range(1000):
        assert metrics.adapter_label(f"invented-{number}") == "unknown"


def test_series_go_with_their_adapter_and_others_stay() -> None:
    metrics = GatewayMetrics()
    metrics.known_adapters(["risk", "tone"])
    for label in ("risk", "tone", "base"):
        touch_all(metrics, label)
    assert labels_of(metrics) == {family: {"risk", "tone", "base"} for family in PER_ADAPTER}
    metrics.known_adapters(["tone"])
    assert labels_of(metrics) == {family: {"tone", "base"} for family in PER_ADAPTER}
    assert metrics.adapter_label("risk") == "unknown"
    metrics.known_adapters([])
    assert labels_of(metrics) == {family: {"base"} for family in PER_ADAPTER}


def test_every_series_of_ours_has_the_prefix_and_a_sentence() -> None:
    for family in GatewayMetrics().registry.collect():
        assert family.name.startswith("hotswap_")
        assert family.documentation.endswith(".")


def test_the_text_holds_ours_and_the_engines() -> None:
    metrics = GatewayMetrics()
    metrics.aborts.labels("client").inc()
    names = {family.name for family in text_string_to_metric_families(metrics.render().decode())}
    assert "hotswap_aborts" in names
    assert any(not name.startswith("hotswap_") for name in names)


@pytest.mark.parametrize("text", ['a"b', "a\nb", "a\\b"])
def test_a_label_cannot_forge_a_series(text: str) -> None:
    metrics = GatewayMetrics()
    metrics.rejections.labels(text).inc()
    families = {f.name: f for f in text_string_to_metric_families(metrics.render().decode())}
    (sample,) = [s for s in families["hotswap_rejections"].samples if s.name.endswith("_total")]
    assert sample.labels == {"code": text}


def test_two_gateways_share_no_numbers() -> None:
    one, other = GatewayMetrics(), GatewayMetrics()
    one.aborts.labels("client").inc()
    assert other.registry.get_sample_value("hotswap_aborts_total", {"reason": "client"}) is None
