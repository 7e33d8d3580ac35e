"""Log lines: one line each, with the request's id, and nobody can forge one."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.observability.logs import HumanFormatter, JsonFormatter, configure_logging

LOGGERS = ("hotswap", "hotswap.access", "bases", "adapters", "serve", "uvicorn")


@pytest.fixture
def loggers() -> Iterator[None]:
    """Loggers are the process's; put back what a test configured."""
    found = [logging.getLogger(name) for name in LOGGERS]
    before = [(log.level, log.propagate, list(log.handlers)) for log in found]
    yield
    for log, (level, propagate, handlers) in zip(found, before, strict=True):
        log.setLevel(level)
        log.propagate = propagate
        log.handlers[:] = handlers


def record(message: str, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("hotswap.http", logging.WARNING, __file__, 1, message, args, None)
    vars(made).update(fields)
    return made


@given(st.text(), st.text())
def test_a_json_line_is_one_line_and_gives_its_message_back(message: str, request_id: str) -> None:
    line = JsonFormatter().format(record("%s", message, request_id=request_id))
    assert len(line.splitlines()) == 1
    assert line.isascii()
    entry = json.loads(line)
    assert entry["message"] == message
    assert entry["request_id"] == request_id
    assert (entry["level"], entry["logger"]) == ("warning", "hotswap.http")


def test_a_traceback_stays_inside_its_json_line() -> None:
    try:
        raise LookupError("line one\nline two")
    except LookupError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "line two" in json.loads(line)["exception"]


def test_absent_fields_are_left_out() -> None:
    entry = json.loads(JsonFormatter().format(record("hello", client_request_id=None, milliseconds=0.0)))
    assert "client_request_id" not in entry
    assert entry["milliseconds"] == 0.0


def test_a_human_line_ends_with_the_details() -> None:
    line = HumanFormatter().format(
        record("GET /v1/models 200", request_id="req-1", client_request_id=None, milliseconds=3.1)
    )
    assert line.endswith("WARNING hotswap.http: GET /v1/models 200 (req-1, 3.1 ms)")
    assert HumanFormatter().format(record("hello")).endswith(": hello")


@pytest.mark.parametrize(("log_format", "opening"), [("human", "1"), ("json", "{")])
def test_the_gateways_loggers_write_to_stderr(
    loggers: None, capsys: pytest.CaptureFixture[str], log_format: str, opening: str
) -> None:
    configure_logging(log_format=log_format, level="info", access_log=False)
    logging.getLogger("hotswap.adapters").info("loaded")
    logging.getLogger("hotswap.adapters").debug("details")
    logging.getLogger("hotswap.access").info("GET / 200")
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "loaded" in line
    assert (line[0] == "{") == (opening == "{")


def test_the_access_log_can_be_switched_on(loggers: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format="human", level="info", access_log=True)
    logging.getLogger("hotswap.access").info("GET / 200")
    assert "GET / 200" in capsys.readouterr().err
