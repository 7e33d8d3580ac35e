"""Locust users that send what a schedule says, and keep what came back and when.

Import this in a process that Locust may patch (gevent) alone: benchmarks/load/client/generator.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent  # type: ignore[import-untyped]
import orjson
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPSocketPoolResponse
from locust import User, task
from locust.exception import StopUser

from benchmarks.load.client.line import Line
from benchmarks.load.client.record import Outcome, Record
from benchmarks.load.client.wire import PATHS, Event, read_event, read_payload, request_body
from benchmarks.load.workload.schedule import Arrival

_REJECTED = frozenset({429, 503})


class ScheduledUser(User):  # type: ignore[misc]  # Locust has no types
    """Sends one request after the other, each when it is due."""

    line: Line  # of the process; set before the first user is made

    def on_start(self) -> None:
        """One connection each, kept open unless the order says otherwise."""
        order = self.line.order
        self.client = HTTPClient.from_url(
            order.url,
            concurrency=1,
            connection_timeout=min(30.0, order.timeout_seconds),
            network_timeout=order.timeout_seconds,
        )
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        if not order.keep_alive:
            self.headers["Connection"] = "close"
        if order.key:
            self.headers["Authorization"] = f"Bearer {order.key}"

    def on_stop(self) -> None:
        """Leave no connection behind."""
        self.client.close()

    @task  # type: ignore[untyped-decorator]
    def send_next(self) -> None:
        """The next request of the line."""
        arrival = self.line.take()
        if arrival is None:
            raise StopUser
        due = arrival.at_seconds if arrival.at_seconds is not None else max(0.0, self.line.now())
        gevent.sleep(max(0.0, due - self.line.now()))
        record = Record(
            arrival.number, due, self.line.now(), adapter=arrival.adapter, max_tokens=arrival.max_tokens
        )
        if arrival.at_seconds is None:
            record.scheduled_seconds = record.sent_seconds
        self.line.begin(record)
        try:
            self._exchange(arrival, record)
        finally:
            self.line.end(record)
            self._report(record)
        if arrival.at_seconds is None and record.outcome in ("rejected", "connect", "error"):
            gevent.sleep(self.line.order.refused_seconds)

    def _exchange(self, arrival: Arrival, record: Record) -> None:
        order = self.line.order
        body = request_body(
            order.dialect,
            model=order.model,
            adapter=arrival.adapter,
            prompt=order.prompts.prompt(arrival.number, arrival.prompt_tokens),
            max_tokens=arrival.max_tokens,
            stream=order.stream,
        )
        try:
            response = self.client.request("POST", PATHS[order.dialect], body, self.headers)
        except TimeoutError:
            _end(record, "timeout", "no_answer", self.line.now())
            return
        except OSError as error:
            _end(record, "connect", type(error).__name__, self.line.now())
            return
        except Exception as error:  # noqa: BLE001 - the client library's own errors share no root
            _end(record, "connect", type(error).__name__, self.line.now())
            return
        record.head_seconds, record.status = self.line.now(), response.status_code
        try:
            if record.status != 200:
                _refused(record, response, self.line.now())
            elif order.stream:
                self._read_stream(arrival, record, response)
            else:
                _note(record, read_payload(orjson.loads(response.read())))
                _end(record, None, None, self.line.now())
        except TimeoutError:
            _end(record, "timeout", "stalled", self.line.now())
        except Exception as error:  # noqa: BLE001 - as above: a stream that broke off, or is no stream
            _end(record, "cut", type(error).__name__, self.line.now())
        finally:
            response.release()

    def _read_stream(self, arrival: Arrival, record: Record, response: HTTPSocketPoolResponse) -> None:
        finished = False
        for block in _blocks(response):
            now = self.line.now()
            event = read_event(block)
            if event is None:
                continue
            if event.text:
                record.event_seconds.append(now)
                if arrival.cancel:
                    _end(record, "cancelled", None, now)
                    return
            _note(record, event)
            if event.error is not None:
                _end(record, "error", event.error, now)
                return
            finished = finished or event.finished
        _end(record, None if finished else "cut", None if finished else "no_last_event", now)

    def _report(self, record: Record) -> None:
        """For Locust's own page and table; our figures come from the records."""
        seconds = record.e2e_seconds or 0.0
        failure = (
            None if record.outcome in ("ok", "cancelled") else RuntimeError(record.code or record.outcome)
        )
        self.environment.events.request.fire(
            request_type=self.line.order.dialect,
            name=record.adapter or "base",
            response_time=seconds * 1000,
            response_length=record.completion_tokens or 0,
            exception=failure,
            context={},
        )


def _blocks(response: HTTPSocketPoolResponse) -> Iterator[bytes]:
    """The events of a stream as they come, each up to its empty line. All lines of a stream end in the same way."""
    line = block = response.readline(b"\n")
    newline = b"\r\n" if line.endswith(b"\r\n") else b"\n"
    while line not in (b"", newline):
        line = response.readline(newline)
        block += line
    while block:
        yield block
        block = response.readline(2 * newline)


def _note(record: Record, event: Event) -> None:
    if event.prompt_tokens is not None:
        record.prompt_tokens = event.prompt_tokens
    if event.completion_tokens is not None:
        record.completion_tokens = event.completion_tokens
    if event.adapter is not None:
        record.version = event.adapter
    if event.timing is not None:
        record.server_timing = event.timing
    if event.error is not None:
        record.code = event.error


def _end(record: Record, outcome: Outcome | None, code: str | None, now: float) -> None:
    """`outcome` None: complete, if it has the length that was asked for."""
    record.done_seconds = now
    record.code = record.code or code
    if outcome is None:
        whole = record.completion_tokens in (None, record.max_tokens)
        outcome = "wrong_adapter" if _of_another(record) else "ok" if whole else "wrong_length"
    record.outcome = outcome


def _of_another(record: Record) -> bool:
    """Whether an adapter of another name answered, by the server's word."""
    if record.adapter is None or record.version is None:
        return False
    return record.version.partition("@")[0] != record.adapter.partition("@")[0]


def _refused(record: Record, response: HTTPSocketPoolResponse, now: float) -> None:
    try:
        payload: Any = orjson.loads(response.read())
        code = read_payload(payload).error
    except (ValueError, AttributeError):
        code = None
    retry_after = response.get("Retry-After")
    if isinstance(retry_after, str) and retry_after.isdecimal():
        record.retry_after_seconds = float(retry_after)
    outcome: Outcome = "rejected" if record.status in _REJECTED else "error"
    _end(record, outcome, code or f"http_{record.status}", now)
