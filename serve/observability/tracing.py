"""OpenTelemetry traces of requests and of adapter loads; off unless the operator names a collector.

A request's spans are made when it ends, from the numbers that its record has anyway, so that tracing costs nothing
on its way. A client's `traceparent` is taken up, and the request's own goes on to the engine. No prompt, no answer
and no key is in a span.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from adapters.registry.records import Event
from bases.errors import HotswapError
from serve.errors import SettingsError
from serve.http.errors import InternalError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from serve.http.exchange import Record

SERVICE_NAME = "hotswap"
_HEADERS = (b"traceparent", b"tracestate")
_MAX_HEADER_BYTES = 512
_EXPORT_SECONDS = 3.0  # for one batch; a shutdown waits for the last one
_NS = 1_000_000_000
_FAILURE_STATUS = 500  # below it the request was at fault, and the server did what it should

_current: contextvars.ContextVar[Mapping[str, str] | None] = contextvars.ContextVar("trace", default=None)


def trace_headers() -> Mapping[str, str] | None:
    """`traceparent` of the request that this task works for, for whoever works for it elsewhere; None: no trace."""
    return _current.get()


def export_to(endpoint: str, *, share: float) -> TracerProvider:
    """A provider whose spans go to an OTLP collector by HTTP; `share` of the requests that bring no trace of
    their own are traced. Raises SettingsError."""
    if not endpoint.startswith(("http://", "https://")):
        raise SettingsError(
            f"--otlp-endpoint {endpoint!r} is no address; write for example http://collector:4318/v1/traces"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise SettingsError(
            f"--otlp-endpoint needs a package that is not here ({error.name}): "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp"
        ) from error
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource({"service.name": SERVICE_NAME}).merge(Resource.create()),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS))
    )
    return provider


class Tracing:
    """Makes the spans of one gateway."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE_NAME)

    def begin(self, record: Record, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """A request has come, with these headers."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        propagator = TraceContextTextMapPropagator()
        sent = {
            name.decode(): value.decode("latin-1")
            for name, value in headers
            if name in _HEADERS and len(value) <= _MAX_HEADER_BYTES
        }
        record.span = self._tracer.start_span(
            f"POST {record.route}",
            context=propagator.extract(sent),
            kind=trace.SpanKind.SERVER,
            start_time=_epoch_ns(record.started),
        )
        carrier: dict[str, str] = {}
        propagator.inject(carrier, trace.set_span_in_context(record.span))
        _current.set(carrier)

    def end(self, record: Record) -> None:
        """A request has ended."""
        from opentelemetry import trace

        span = record.span
        if span is None or not span.is_recording():
            return
        error = record.error
        code = error.code if isinstance(error, HotswapError) else InternalError.code
        span.set_attributes(
            {
                "http.request.method": "POST",
                "http.route": record.route,
                "http.response.status_code": record.status,
                "hotswap.adapter": record.adapter or "base",
                "hotswap.version": record.version or "",
                "hotswap.caller": record.caller.name,
                "gen_ai.usage.input_tokens": record.prompt_tokens,
                "gen_ai.usage.output_tokens": record.completion_tokens,
                **({"error.type": code} if error is not None else {}),
            }
        )
        if error is not None and record.status >= _FAILURE_STATUS:
            span.set_status(trace.StatusCode.ERROR, code)
        began = _epoch_ns(record.started)
        parent = trace.set_span_in_context(span)
        if record.queue_seconds is not None:
            self._span("queue", parent, began, began + int(record.queue_seconds * _NS))
        if record.ttft_seconds is not None:
            first = began + int(record.ttft_seconds * _NS)
            span.add_event("first token", timestamp=first)
            self._span("first token", parent, began + int((record.queue_seconds or 0.0) * _NS), first)
            if record.last_token is not None:
                self._span("generation", parent, first, max(first, _epoch_ns(record.last_token)))
        span.end()

    def note_event(self, event: Event) -> None:
        """A verb on an adapter has ended; one that tells its phases becomes a trace of its own."""
        phases = event.detail.get("phase_seconds")
        if not isinstance(phases, Mapping):
            return
        from opentelemetry import trace

        seconds = {str(name): float(str(value)) for name, value in phases.items()}
        ended = time.time_ns()
        began = ended - int(seconds.pop("total", sum(seconds.values())) * _NS)
        attributes = {
            "hotswap.adapter": event.name or "",
            "hotswap.version": (event.digest or "")[:8],
            "hotswap.outcome": event.outcome,
        }
        span = self._tracer.start_span(f"adapter {event.action}", start_time=began, attributes=attributes)
        parent, place = trace.set_span_in_context(span), began
        for name, taken in seconds.items():
            place = self._span(name, parent, place, place + int(taken * _NS))
        span.end(ended)

    def close(self) -> None:
        """Send what was not sent yet. Blocks for as long as the collector lets it."""
        self._provider.shutdown()

    def _span(self, name: str, parent: Any, began: int, ended: int) -> int:
        self._tracer.start_span(name, context=parent, start_time=began).end(ended)
        return ended


def _epoch_ns(moment: float) -> int:
    """Nanoseconds since the epoch of a moment of time.perf_counter()."""
    return time.time_ns() - int((time.perf_counter() - moment) * _NS)
