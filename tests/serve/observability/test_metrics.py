"""Series without end are impossible, and series of an adapter go with it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.observability.metrics import MAX_TENANTS, GatewayMetrics

PER_VERSION = (
    "requests",
    "request_seconds",
    "queue_seconds",
    "ttft_seconds",
    "tpot_seconds",
    "prompt_tokens",
    "completion_tokens",
    "errors",
)
RISK, TONE = "risk@00000001", "tone@00000002"


def touch_all(metrics: GatewayMetrics, version: str | None) -> None:
    pair = metrics.pair(version)
    metrics.requests.labels("/generate", *pair, "200").inc()
    metrics.request_seconds.labels("/generate", *pair).observe(1)
    for family in (metrics.queue_seconds, metrics.ttft_seconds, metrics.tpot_seconds):
        family.labels(*pair).observe(0.01)
    metrics.prompt_tokens.labels(*pair).inc(3)
    metrics.completion_tokens.labels(*pair).inc(4)
    metrics.errors.labels(*pair, "generation_failed").inc()


def labels_of(metrics: GatewayMetrics) -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = {}
    for family in metrics.registry.collect():
        pairs = {
            (sample.labels["adapter"], sample.labels["version"])
            for sample in family.samples
            if "adapter" in sample.labels
        }
        if pairs:
            found[family.name.removeprefix("hotswap_")] = pairs
    return found


def test_series_go_with_their_version_and_others_stay() -> None:
    metrics = GatewayMetrics()
    for version in (RISK, "risk@00000003", TONE, None):
        touch_all(metrics, version)
    base, tone = ("base", ""), ("tone", "00000002")
    old, new = ("risk", "00000001"), ("risk", "00000003")
    assert labels_of(metrics) == {family: {old, new, tone, base} for family in PER_VERSION}
    metrics.known_versions({"risk@00000003", TONE})
    assert labels_of(metrics) == {family: {new, tone, base} for family in PER_VERSION}
    metrics.known_adapters(["tone"])
    assert labels_of(metrics) == {family: {tone, base} for family in PER_VERSION}
    metrics.known_adapters([])
    assert labels_of(metrics) == {family: {base} for family in PER_VERSION}


def test_a_request_that_got_no_version_is_unknown_whatever_it_asked_for() -> None:
    assert GatewayMetrics().pair(None, resolved=False) == ("unknown", "")


def test_a_thousand_adapters_make_no_more_series_than_the_bound() -> None:
    metrics = GatewayMetrics(max_versions=8)
    for number in range(1000):
        touch_all(metrics, f"a{number}@{number:08x}")
    for pairs in labels_of(metrics).values():
        assert len(pairs) == 9
        assert ("other", "other") in pairs
    counted = metrics.registry.get_sample_value(
        "hotswap_completion_tokens_total", {"adapter": "other", "version": "other"}
    )
    assert counted == 4 * 992


def test_tenants_beyond_the_bound_share_a_series() -> None:
    metrics = GatewayMetrics()
    labels = {metrics.tenant(f"tenant-{number}") for number in range(1000)}
    assert len(labels) == MAX_TENANTS + 1
    assert metrics.tenant("tenant-0") == "tenant-0"
    assert GatewayMetrics().tenant("") == "none"
    assert metrics.tenant("tenant-999") == "other"


def test_every_series_of_ours_has_the_prefix_and_a_sentence() -> None:
    for family in GatewayMetrics().registry.collect():
        assert family.name.startswith("hotswap_")
        assert family.documentation.endswith(".")


def test_the_text_has_no_times_of_creation() -> None:
    metrics = GatewayMetrics()
    touch_all(metrics, RISK)
    ours = [line for line in metrics.render().decode().splitlines() if "hotswap_" in line]
    assert ours
    assert not [line for line in ours if "_created" in line]


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


def test_sixty_four_active_adapters_of_a_thousand_are_half_a_megabyte() -> None:
    metrics = GatewayMetrics()
    for number in range(64):
        touch_all(metrics, f"a{number:04d}@{number:08x}")
    metrics.known_versions({f"a{number:04d}@{number:08x}" for number in range(1000)})
    ours = [line for line in metrics.render().decode().splitlines() if line.startswith("hotswap_")]
    assert len(metrics.labels) == 64
    assert sum(map(len, ours)) < 512 * 1024
