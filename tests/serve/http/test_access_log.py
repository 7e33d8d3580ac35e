"""One line per request, which nobody can forge."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from serve.http.access_log import AccessLogMiddleware


async def log_of(caplog: pytest.LogCaptureFixture, path: str, status: int | None) -> logging.LogRecord:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if status is not None:
            await send({"type": "http.response.start", "status": status, "headers": []})

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"key=secret",
        "headers": [(b"authorization", b"Bearer secret")],
        "state": {"hotswap_request_id": "req-1", "hotswap_client_request_id": "trace-1"},
    }
    nothing: Any = None
    with caplog.at_level(logging.DEBUG, "hotswap.access"):
        await AccessLogMiddleware(app)(scope, nothing, send)
    (record,) = caplog.records
    return record


async def test_a_line_says_what_was_asked_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    record = await log_of(caplog, "/generate", 200)
    assert record.getMessage() == "POST /generate 200"
    assert (record.levelno, record.__dict__["request_id"]) == (logging.INFO, "req-1")
    assert record.__dict__["client_request_id"] == "trace-1"
    assert record.__dict__["milliseconds"] >= 0
    assert "secret" not in str(record.__dict__)


async def test_a_client_that_left_first_is_a_499(caplog: pytest.LogCaptureFixture) -> None:
    assert (await log_of(caplog, "/generate", None)).getMessage() == "POST /generate 499"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_watchers_are_quiet(caplog: pytest.LogCaptureFixture, path: str) -> None:
    assert (await log_of(caplog, path, 200)).levelno == logging.DEBUG


async def test_a_path_cannot_forge_a_line_or_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    record = await log_of(caplog, "/a\n12:00:00 INFO forged\u2028" + "x" * 9999, 404)
    message = record.getMessage()
    assert len(message.splitlines()) == 1
    assert message.isascii()
    assert len(message) < 300


async def test_a_bug_is_logged_as_the_500_that_it_becomes(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    nothing: Any = None
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    with caplog.at_level(logging.INFO, "hotswap.access"), pytest.raises(LookupError):
        await AccessLogMiddleware(app)(scope, nothing, nothing)
    assert caplog.messages == ["GET /x 500"]
