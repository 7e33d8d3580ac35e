"""One HTTP exchange from the parsed request to the last byte, in one scope.

A `Reply` is a response whose body is made while it is being sent. Everything a request holds (its place in the
queue, its lease, its engine request) is opened inside `Exchange.run` and closed with it, so that nothing can
leak between a route's return and the response, and a client that leaves is noticed at any point.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from bases.errors import HotswapError
from serve.access.caller import ANYONE, BASE_NAME, Caller
from serve.errors import (
    BusyError,
    DeadlineExceededError,
    FirstTokenTimeoutError,
    QueueTimeoutError,
    RequestAbortedError,
    ServeError,
)
from serve.http.errors import InternalError, status_of
from serve.http.json_chunks import json_chunks
from serve.http.send_limit import within
from serve.lifecycle.board import Lease
from serve.observability.metrics import GatewayMetrics
from serve.observability.tracing import Tracing
from serve.running import ClientGoneError, RunningRequest, RunningRequests

logger = logging.getLogger("hotswap.http")

RECORD_KEY = "hotswap_record"  # where a request's state has its record, for the access log
# What a request goes through, in order; `hotswap_stage_seconds` by this label.
STAGES = ("entry", "admission", "engine_queue", "first_token", "generation", "send")

_ABORT_REASONS: tuple[tuple[type[ServeError], str], ...] = (
    (ClientGoneError, "client"),
    (QueueTimeoutError, "queue_deadline"),
    (FirstTokenTimeoutError, "first_token_deadline"),
    (DeadlineExceededError, "deadline"),
    (RequestAbortedError, "server"),
)


class Record:
    """What is known of an exchange when it ends: the numbers of its metrics and of its log line."""

    def __init__(self, route: str) -> None:
        self.route = route
        self.started = time.perf_counter()
        self.adapter: str | None = None  # alias as known to the registry; None is the base
        self.adapter_resolved = False
        self.version: str | None = None  # engine name of the version that answers; None: the base
        self.caller: Caller = ANYONE
        self.queue_seconds: float | None = None
        self.ttft_seconds: float | None = None
        self.entry_seconds: float | None = None
        self.admission_seconds = 0.0
        self.last_token: float | None = None
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.sequences = 1
        self.status = 500
        self.streaming = False  # the client gets each token as it comes
        self.answered = False  # the status line is on its way
        self.completed = False
        self.span: Any = None  # of its trace
        self.error: Exception | None = None  # what ended it, if it did not complete

    def note_caller(self, caller: Caller) -> None:
        """Who asks."""
        self.caller = caller

    def token(self, count: int) -> None:
        """That many generated tokens were seen now."""
        now = time.perf_counter()
        self.completion_tokens += count
        if self.ttft_seconds is None:
            self.ttft_seconds = now - self.started
        self.last_token = now

    def note_queue(self, seconds: float) -> None:
        """One prompt waited so long; of several the longest counts."""
        self.queue_seconds = max(self.queue_seconds or 0.0, seconds)

    def note_place(self, *, asked_seconds: float, waited_seconds: float) -> None:
        """A place in the engine was asked for so long after the request came, and given after so much more.

        Of several prompts the first one's asking and the longest wait count.
        """
        if self.entry_seconds is None:
            self.entry_seconds = asked_seconds
        self.admission_seconds = max(waited_seconds, self.admission_seconds)

    def note_ttft(self, seconds: float) -> None:
        """One prompt had its first token so long after the request; of several the earliest counts."""
        self.ttft_seconds = seconds if self.ttft_seconds is None else min(self.ttft_seconds, seconds)

    @property
    def seconds(self) -> float:
        """Seconds since the request was parsed."""
        return time.perf_counter() - self.started

    @property
    def tpot_seconds(self) -> float | None:
        """Mean seconds per token after the first of one sequence; None for fewer than two tokens."""
        per_sequence = self.completion_tokens / max(1, self.sequences)
        if self.ttft_seconds is None or self.last_token is None or per_sequence < 2:
            return None
        return max(0.0, self.last_token - self.started - self.ttft_seconds) / (per_sequence - 1)

    def stages(self) -> dict[str, float]:
        """Seconds of each stage, which add up to `seconds`; none where the first token's time is not known."""
        if self.entry_seconds is None or self.ttft_seconds is None or self.last_token is None:
            return {}
        queued = max(self.queue_seconds or 0.0, self.admission_seconds)
        ends = [
            self.entry_seconds,
            self.entry_seconds + self.admission_seconds,
            self.entry_seconds + queued,
            self.ttft_seconds,
            self.last_token - self.started,
            self.seconds,
        ]
        # The engine's clock and that of several prompts overlap: no stage ends after the one that follows it.
        for place in reversed(range(len(ends) - 1)):
            ends[place] = min(ends[place], ends[place + 1])
        return {stage: end - begin for stage, begin, end in zip(STAGES, [0.0, *ends[:-1]], ends, strict=True)}

    def observe(self, metrics: GatewayMetrics) -> None:
        """Write the exchange into the metrics."""
        pair = metrics.pair(self.version, resolved=self.adapter_resolved)
        metrics.requests.labels(self.route, *pair, str(self.status)).inc()
        tenant = metrics.tenant(self.caller.tenant)
        metrics.tenant_requests.labels(tenant).inc()
        metrics.tenant_tokens.labels(tenant).inc(self.prompt_tokens + self.completion_tokens)
        if self.error is not None:
            code = self.error.code if isinstance(self.error, HotswapError) else InternalError.code
            metrics.errors.labels(*pair, code).inc()
        if not self.completed:
            return
        metrics.request_seconds.labels(self.route, *pair).observe(self.seconds)
        if self.queue_seconds is not None:
            metrics.queue_seconds.labels(*pair).observe(self.queue_seconds)
        for stage, seconds in self.stages().items():
            metrics.stage_seconds.labels(stage).observe(seconds)
        if self.ttft_seconds is not None:
            metrics.ttft_seconds.labels(*pair).observe(self.ttft_seconds)
        if (tpot := self.tpot_seconds) is not None:
            metrics.tpot_seconds.labels(*pair).observe(tpot)
        metrics.prompt_tokens.labels(*pair).inc(self.prompt_tokens)
        metrics.completion_tokens.labels(*pair).inc(self.completion_tokens)


class Exchange:
    """Sends the parts of one answer, each within the send limit."""

    def __init__(self, running: RunningRequest, send: Send, record: Record, send_seconds: float) -> None:
        self.running = running
        self.record = record
        self.headers: dict[str, str] = {}  # more of the answer's headers, until it begins
        self.streams = False  # the answer is a stream of events, which can still end with an error
        self._send = send
        self._send_seconds = send_seconds

    def use(self, lease: Lease) -> None:
        """Name the version that answers, for the metrics and for whoever has to end the request."""
        self.record.adapter = lease.alias
        self.record.adapter_resolved = True
        self.record.version = self.running.version = lease.version
        self.headers["X-Hotswap-Adapter"] = lease.version or BASE_NAME

    def timing(self) -> dict[str, float | None]:
        """Milliseconds of this exchange so far."""
        record = self.record
        return {
            "entry_ms": _ms(record.entry_seconds),
            "admission_ms": round(record.admission_seconds * 1000, 3),
            "queue_ms": _ms(record.queue_seconds),
            "ttft_ms": _ms(record.ttft_seconds),
            "total_ms": round(record.seconds * 1000, 3),
        }

    @property
    def started(self) -> bool:
        """True once the status line is on its way."""
        return self.record.answered

    async def json(self, payload: object, status: int = 200) -> None:
        """Send a whole JSON answer; `payload` may hold Rows."""
        chunks = await json_chunks(payload)
        num_bytes = sum(map(len, chunks))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(num_bytes).encode())]
        await self._start(status, headers)
        chunks.reverse()
        while chunks:
            body = chunks.pop()
            await self._put({"type": "http.response.body", "body": body, "more_body": bool(chunks)})

    async def open_events(self) -> None:
        """Send the head of a stream of server-sent events."""
        self.streams = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await self._start(200, headers)

    async def event(self, chunk: bytes) -> None:
        """Send one chunk of the stream."""
        await self._put({"type": "http.response.body", "body": chunk, "more_body": True})

    async def close_events(self) -> None:
        """End the stream."""
        await self._put({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.record.answered = True
        self.record.status = status
        more = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await self._put({"type": "http.response.start", "status": status, "headers": headers + more})

    async def _put(self, message: Message) -> None:
        try:
            await within(self._send(message), self._send_seconds)
        except TimeoutError:
            raise ClientGoneError(f"the client read nothing for {self._send_seconds:g} s") from None
        except OSError:
            raise ClientGoneError("the client closed the connection") from None


def _ms(seconds: float | None) -> float | None:
    return round(seconds * 1000, 3) if seconds is not None else None


async def _watch(receive: Receive, running: RunningRequest) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    running.abort(ClientGoneError("the client closed the connection"))


def _check_begun(running: RunningRequest, record: Record, seconds: float) -> None:
    if record.streaming and record.ttft_seconds is None:
        running.abort(FirstTokenTimeoutError(f"the stream had no token within {seconds:g} s and was ended"))


class ExchangeLimits:
    """How long an exchange may take, in seconds."""

    def __init__(
        self, *, request_seconds: float, send_seconds: float, first_token_seconds: float | None = None
    ) -> None:
        """`first_token_seconds` is for streams; of other answers nobody sees the first token."""
        self.request_seconds = request_seconds
        self.send_seconds = send_seconds
        self.first_token_seconds = first_token_seconds


class Exchanges:
    """Opens exchanges and counts how they end."""

    def __init__(
        self,
        running: RunningRequests,
        metrics: GatewayMetrics,
        limits: ExchangeLimits,
        observers: Sequence[Callable[[Record], None]] = (),
        tracing: Tracing | None = None,
    ) -> None:
        """`observers` are told of each exchange once, when it has ended."""
        self.running = running
        self.metrics = metrics
        self.limits = limits
        self.observers = list(observers)
        self.tracing = tracing

    @asynccontextmanager
    async def open(
        self, route: str, request_id: str, receive: Receive, send: Send, scope: Scope | None = None
    ) -> AsyncIterator[Exchange]:
        """Watch the client and the clock while the block runs.

        Inside, the end by disconnect, deadline or abort arrives as a cancellation; outside the block it is the
        ServeError that caused it.
        """
        record = Record(route)
        if scope is not None:
            scope.setdefault("state", {})[RECORD_KEY] = record
            if self.tracing is not None:
                self.tracing.begin(record, scope["headers"])
        loop = asyncio.get_running_loop()
        try:
            with self.running.track(request_id) as running:
                deadline = loop.call_later(
                    self.limits.request_seconds,
                    running.abort,
                    DeadlineExceededError(
                        f"the request took longer than {self.limits.request_seconds:g} s and was ended"
                    ),
                )
                late = self.limits.first_token_seconds
                first = loop.call_later(late, _check_begun, running, record, late) if late else None
                watcher = asyncio.create_task(_watch(receive, running))
                try:
                    yield Exchange(running, send, record, self.limits.send_seconds)
                    record.completed = True
                finally:
                    deadline.cancel()
                    if first is not None:
                        first.cancel()
                    watcher.cancel()
        except HotswapError as error:
            record.error = error
            if not record.answered:
                record.status = status_of(error)
            if isinstance(error, BusyError):
                self.metrics.rejections.labels(error.code).inc()
            for kind, reason in _ABORT_REASONS:
                if isinstance(error, kind):
                    self.metrics.aborts.labels(reason).inc()
                    break
            raise
        except Exception as error:  # the request boundary: observers tell a bug from a cancellation
            record.error = error
            raise
        finally:
            record.observe(self.metrics)
            if self.tracing is not None:
                self.tracing.end(record)
            for observer in self.observers:
                observer(record)


class Reply(Response):
    """A response that makes its body while it is sent; subclasses answer through the exchange."""

    media_type = None

    def __init__(self, exchanges: Exchanges, route: str, request_id: str) -> None:
        super().__init__()
        self._exchanges = exchanges
        self._route = route
        self.request_id = request_id

    async def run(self, exchange: Exchange) -> None:
        """Answer the request."""
        raise NotImplementedError

    async def fail(self, exchange: Exchange, error: HotswapError) -> None:
        """Say what went wrong inside a stream whose status line is already out, and end the stream."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = None
        try:
            async with self._exchanges.open(self._route, self.request_id, receive, send, scope) as exchange:
                await self.run(exchange)
        except ClientGoneError:
            return  # nobody is left to tell
        except HotswapError as error:
            if exchange is None or not exchange.started:
                raise
            if exchange.streams:  # a whole answer is on its way already, and the client reads slowly
                with suppress(ClientGoneError):
                    await self.fail(exchange, error)
        except Exception:  # the request boundary: a bug must still end the stream with a reason
            if exchange is None or not exchange.started:
                raise
            logger.exception("request %s failed after its answer had begun", self.request_id)
            if exchange.streams:
                with suppress(ClientGoneError):
                    await self.fail(exchange, InternalError("the server failed on this request"))
