"""Logging of the whole process, configured once at start: lines for people, or JSON for machines."""

from __future__ import annotations

import json
import logging
import logging.config
from typing import Any

_FIELDS = ("request_id", "client_request_id", "milliseconds")
# Of the access log and the start, in JSON alone: a line for people is long enough.
_MORE_FIELDS = (
    "status",
    "adapter",
    "caller",
    "prompt_tokens",
    "completion_tokens",
    "queue_ms",
    "ttft_ms",
    "error",
    "stage",
    "stage_seconds",
)


class HumanFormatter(logging.Formatter):
    """`12:30:05 INFO  hotswap.access: GET /v1/models 200 (3.1 ms, req-ab12)`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        details = [str(value) for name in _FIELDS if (value := getattr(record, name, None)) is not None]
        if getattr(record, "milliseconds", None) is not None:
            details[-1] += " ms"
        return f"{line} ({', '.join(details)})" if details else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line; control characters are escaped, so that nobody can forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _FIELDS + _MORE_FIELDS:
            if (value := getattr(record, name, None)) is not None:
                entry[name] = value
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


def configure_logging(*, log_format: str, level: str, access_log: bool) -> None:
    """Set up the loggers of the gateway and of uvicorn. vLLM keeps its own, at WARNING unless debugging."""
    formatter = HumanFormatter if log_format == "human" else JsonFormatter
    shown = level.upper()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": formatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "loggers": {
                "hotswap": {"handlers": ["stderr"], "level": shown, "propagate": False},
                "hotswap.access": {"level": shown if access_log else "WARNING"},
                "bases": {"handlers": ["stderr"], "level": shown, "propagate": False},
                "adapters": {"handlers": ["stderr"], "level": shown, "propagate": False},
                "serve": {"handlers": ["stderr"], "level": shown, "propagate": False},
                "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            },
        }
    )
