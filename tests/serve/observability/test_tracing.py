"""Traces of requests and loads: off unless asked for, in the client's trace, without a text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from serve.engine.protocol import EngineOutput, EngineRequest
from serve.engine.scripted import Script, ScriptedEngine
from serve.errors import SettingsError
from serve.observability.tracing import Tracing, export_to, trace_headers
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@dataclass
class Collector:
    """Keeps the spans of one gateway."""

    tracing: Tracing
    exporter: InMemorySpanExporter

    def watch(self, gateway: ScriptedGateway) -> None:
        gateway.gateway.exchanges.tracing = self.tracing
        gateway.gateway.events.listen(self.tracing.note_event)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def collector() -> Iterator[Collector]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield Collector(Tracing(provider), exporter)
    provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


async def test_a_request_is_a_span_with_its_queue_first_token_and_generation(
    scripted_gateway: MakeGateway, collector: Collector
) -> None:
    gateway = await scripted_gateway(Script(ttft_seconds=0.02, tpot_seconds=0.01))
    collector.watch(gateway)
    version = await gateway.load("risk")
    body = {"prompt": "a secret", "adapter": "risk", "max_tokens": 3, "stream": True}
    await gateway.client.post("/generate", json=body)
    spans = collector.spans()
    whole = spans["POST /generate"]
    for name in ("queue", "first token", "generation"):
        parent = spans[name].parent
        assert parent is not None
        assert parent.span_id == whole.context.span_id
    assert seconds(spans["generation"]) == pytest.approx(0.02, abs=0.15)
    assert seconds(spans["first token"]) >= 0.015
    assert seconds(whole) >= 0.035
    assert attributes(whole) == {
        "http.request.method": "POST",
        "http.route": "/generate",
        "http.response.status_code": 200,
        "hotswap.adapter": "risk",
        "hotswap.version": version,
        "hotswap.caller": "local",
        "gen_ai.usage.input_tokens": len("a secret"),
        "gen_ai.usage.output_tokens": 3,
    }
    assert "secret" not in str([span.to_json() for span in spans.values()])


async def test_a_clients_trace_is_taken_up_and_goes_on_to_the_engine(
    scripted_gateway: MakeGateway, collector: Collector
) -> None:
    seen: list[Any] = []

    class Sees(ScriptedEngine):
        async def generate(self, request: EngineRequest) -> Any:
            seen.append(trace_headers())
            async for output in super().generate(request):
                assert isinstance(output, EngineOutput)
                yield output

    gateway = await scripted_gateway(engine=Sees())
    collector.watch(gateway)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    await gateway.client.post("/generate", json={"prompt": "x", "max_tokens": 1}, headers=headers)
    span = collector.spans()["POST /generate"]
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert seen == [{"traceparent": f"00-{TRACE}-{span.context.span_id:016x}-01"}]


@pytest.mark.parametrize(
    "sent", ["junk", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01" + "x" * 999]
)
async def test_a_traceparent_that_is_none_is_left_out(
    scripted_gateway: MakeGateway, collector: Collector, sent: str
) -> None:
    gateway = await scripted_gateway()
    collector.watch(gateway)
    body = {"prompt": "x", "max_tokens": 1}
    response = await gateway.client.post("/generate", json=body, headers={"traceparent": sent})
    assert response.status_code == 200
    assert collector.spans()["POST /generate"].parent is None


@pytest.mark.parametrize(
    ("script", "adapter", "status", "code"),
    [
        (Script(), "nobody", StatusCode.UNSET, "model_not_found"),
        (Script(fail_after_tokens=1), None, StatusCode.ERROR, "generation_failed"),
    ],
)
async def test_an_error_is_named_and_only_the_servers_own_marks_the_span(
    scripted_gateway: MakeGateway,
    collector: Collector,
    script: Script,
    adapter: str | None,
    status: StatusCode,
    code: str,
) -> None:
    gateway = await scripted_gateway(script)
    collector.watch(gateway)
    await gateway.client.post("/generate", json={"prompt": "x", "adapter": adapter, "max_tokens": 3})
    span = collector.spans()["POST /generate"]
    assert attributes(span)["error.type"] == code
    assert span.status.status_code is status


async def test_a_load_is_a_trace_with_its_phases(scripted_gateway: MakeGateway, collector: Collector) -> None:
    gateway = await scripted_gateway(Script(load_seconds=0.02))
    collector.watch(gateway)
    version = await gateway.load("risk")
    spans = collector.spans()
    whole = spans["adapter load"]
    assert {"check", "store", "load", "probe"} <= {
        name for name, span in spans.items() if span.parent is not None
    }
    assert seconds(spans["load"]) >= 0.015
    assert attributes(whole) == {
        "hotswap.adapter": "risk",
        "hotswap.version": version.partition("@")[2],
        "hotswap.outcome": "done",
    }


async def test_without_a_collector_nothing_is_traced(scripted_gateway: MakeGateway) -> None:
    gateway = await scripted_gateway()
    assert gateway.gateway.exchanges.tracing is None
    await gateway.client.post("/generate", json={"prompt": "x", "max_tokens": 1})
    assert trace_headers() is None


async def test_a_gateway_whose_collector_does_not_answer_serves_and_ends(
    scripted_gateway: MakeGateway,
) -> None:
    gateway = await scripted_gateway(otlp_endpoint="http://127.0.0.1:9/v1/traces")
    response = await gateway.client.post("/generate", json={"prompt": "x", "max_tokens": 1})
    assert response.status_code == 200
    await gateway.life.down()


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="is no address"):
        export_to("collector:4318", share=1.0)
