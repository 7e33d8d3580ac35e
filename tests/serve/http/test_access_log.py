"""One line per request, which nobody can forge."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serve.http.access_log import AccessLogMiddleware
from serve.observability.logs import JsonFormatter
from tests.serve.conftest import ScriptedGateway

MakeGateway = Callable[..., Awaitable[ScriptedGateway]]


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


async def test_a_line_of_a_generation_says_who_answered_whom_and_how_fast(
    caplog: pytest.LogCaptureFixture, scripted_gateway: MakeGateway
) -> None:
    gateway = await scripted_gateway()
    version = await gateway.load("risk")
    with caplog.at_level(logging.INFO, "hotswap.access"):
        body = {"prompt": "a secret", "adapter": "risk", "max_tokens": 3}
        await gateway.client.post("/generate", json=body)
        await gateway.client.post("/generate", json={"prompt": "a secret", "adapter": "nobody"})
    answered, refused = [json.loads(JsonFormatter().format(record)) for record in caplog.records[-2:]]
    assert (answered["adapter"], answered["caller"], answered["status"]) == (version, "local", 200)
    assert (answered["prompt_tokens"], answered["completion_tokens"]) == (len("a secret"), 3)
    assert 0 <= answered["queue_ms"] <= answered["ttft_ms"] <= answered["milliseconds"]
    assert "error" not in answered
    assert (refused["status"], refused["error"]) == (404, "model_not_found")
    assert "adapter" not in refused
    assert "secret" not in caplog.text


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
