"""Errors as TGI and LoRAX write them, for the routes of their dialect: `{"error", "error_type"}`.

Their clients choose the exception by `error_type` and, where that says nothing to them, by the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "/lorax"

# Of status 400; 422 is validation anyway.
_VALIDATION = frozenset({"context_length_exceeded", "invalid_grammar", "refused_by_engine"})
_OVERLOADED = frozenset({"busy", "draining", "queue_full"})
_GENERATION = frozenset({"engine_error", "generation_failed"})
# What a client can tell from a stream that has begun; its status was 200.
_KNOWN = frozenset({"generation", "incomplete_generation", "overloaded", "validation"})


def speaks_tgi(path: str) -> bool:
    """Whether a request to this path is answered in this dialect."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def tgi_error(status: int, body: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    """(status, body) in this dialect of an error in the gateway's own shape."""
    code, message = str(body["error"]["code"]), str(body["error"]["message"])
    if code in _VALIDATION or status == 422:
        return 422, {"error": message, "error_type": "validation"}
    if code in _OVERLOADED or status == 429:
        return status, {"error": message, "error_type": "overloaded"}
    if code in _GENERATION:
        return 424, {"error": message, "error_type": "generation"}
    if code == "aborted":
        return status, {"error": message, "error_type": "incomplete_generation"}
    return status, {"error": message, "error_type": code}


def tgi_stream_error(status: int, body: Mapping[str, Any]) -> dict[str, str]:
    """The last event of a stream that broke off."""
    _, error = tgi_error(status, body)
    if error["error_type"] not in _KNOWN:
        error["error_type"] = "incomplete_generation"
    return error
