"""The requests that are sent, and what their answers tell, in each dialect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

# `tutorial`: what the handler of benchmarks/load/peers/tutorial_service.py speaks; it lists no models.
Dialect = Literal["generate", "chat", "completions", "tutorial"]
PATHS: dict[Dialect, str] = {
    "generate": "/generate",
    "tutorial": "/generate",
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
}


@dataclass(frozen=True, slots=True)
class Event:
    """What one server-sent event, or a whole answer, tells."""

    text: bool = False  # it brought text
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    adapter: str | None = None  # the version that answered, where the server says so
    finished: bool = False  # the answer is complete
    error: str | None = None  # the server's code for what went wrong
    timing: dict[str, float | None] | None = None  # of /generate: the gateway's own times, milliseconds


def request_body(
    dialect: Dialect, *, model: str, adapter: str | None, prompt: str, max_tokens: int, stream: bool
) -> bytes:
    """A greedy request for exactly `max_tokens` tokens. `model` is the base's name, for OpenAI's dialect."""
    if dialect == "tutorial":
        return orjson.dumps({"prompt": prompt, "max_new_tokens": max_tokens})
    body: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True}
    if stream:
        body["stream"] = True
    if dialect == "generate":
        body["prompt"] = prompt
        if adapter is not None:
            body["adapter"] = adapter
    else:
        body["model"] = adapter or model
        if dialect == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if stream:
            body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


def read_event(block: bytes) -> Event | None:
    """One event of a stream, up to its empty line; None for a comment or OpenAI's closing [DONE]."""
    kind, data = b"", b""
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data = line[5:].strip()
        elif line.startswith(b"event:"):
            kind = line[6:].strip()
    if not data or data == b"[DONE]":
        return None
    payload = orjson.loads(data)
    event = read_payload(payload)
    if kind == b"done":
        return replace(event, text=False, finished=True)
    return event


def read_payload(payload: dict[str, Any]) -> Event:
    """A whole answer, or the JSON of one event."""
    if payload.get("error"):
        return Event(error=_error_code(payload["error"]))
    usage = payload.get("usage") or {}
    choices = payload.get("choices") or ()
    text = payload.get("text")
    finished = bool(payload.get("finish_reason"))
    for choice in choices:
        delta = choice.get("delta") or choice.get("message") or choice
        text = text or delta.get("content") or delta.get("text") or delta.get("reasoning_content")
        finished = finished or bool(choice.get("finish_reason"))
    return Event(
        bool(text),
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        payload.get("adapter"),
        finished,
        timing=payload.get("timing"),
    )


def _error_code(error: object) -> str:
    if isinstance(error, dict):
        return str(error.get("code") or error.get("type") or "error")[:60]
    return "error"
