"""The request shapes that are compared, and the one way to read their answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Dialect = Literal["generate", "completions"]

PATHS: dict[Dialect, str] = {
    "generate": "/generate",
    "completions": "/v1/completions",
}


@dataclass(frozen=True, slots=True)
class Event:
    """What one server-sent event, or a whole JSON answer, tells."""

    text: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


def request_body(dialect: Dialect, *, model: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """A greedy request for exactly `max_tokens` tokens, streamed where the server can."""
    match dialect:
        case "generate":
            return {
                "prompt": prompt,
                "max_tokens": max_tokens,
                "temperature": 0.0,
                "ignore_eos": True,
                "stream": True,
            }
        case "completions":
            return {
                "model": model,
                "prompt": prompt,
                "max_tokens": max_tokens,
                "temperature": 0.0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }


def read_payload(payload: dict[str, Any]) -> Event:
    """One JSON object of any of the dialects."""
    error = payload.get("error")
    if error:
        return Event(error=_error_text(error))
    usage = payload.get("usage") or {}
    choices = payload.get("choices") or [{}]
    return Event(
        text=payload.get("text") or choices[0].get("text") or "",
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )


def _error_text(error: object) -> str:
    if isinstance(error, dict):
        return f"{error.get('code') or error.get('type') or 'error'}: {error.get('message', '')}"[:300]
    return str(error)[:300]


def split_events(arrivals: list[tuple[float, bytes]]) -> Iterator[tuple[float, str]]:
    """(arrival time, data) of each server-sent event; an event has the time at which its last byte came."""
    rest = b""
    for seconds, piece in arrivals:
        *complete, rest = (rest + piece).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in complete:
            lines = block.split(b"\n")
            data = [line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")]
            if data:
                yield seconds, b"\n".join(data).decode("utf-8", "replace")


def read_events(arrivals: list[tuple[float, bytes]]) -> list[tuple[float, Event]]:
    """The events of a stream with their arrival times; the closing [DONE] is left out."""
    return [
        (seconds, read_payload(json.loads(data)))
        for seconds, data in split_events(arrivals)
        if data != "[DONE]"
    ]
