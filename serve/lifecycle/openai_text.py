"""The text of the first choice in OpenAI's answers and stream events: what a shadow's answer is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from serve.errors import GenerationFailedError

_DATA = "data: "
_END = "[DONE]"


class SilentObserver:
    """A serve.engine.protocol.GenerationObserver that writes nothing down."""

    def prompt(self, num_tokens: int) -> None:
        """Nobody is told."""

    def output(self, num_tokens: int, queue_seconds: float | None, ttft_seconds: float | None) -> None:
        """Nobody is told."""


def text_of_answer(answer: Mapping[str, Any]) -> str:
    """Text of a whole answer's first choice; thoughts before it count, tool calls do not."""
    for choice in answer.get("choices") or ():
        if choice.get("index") == 0:
            return _text(choice.get("message") or choice)
    return ""


def text_of_event(event: str) -> str:
    """What one event of a stream adds to the first choice. Raises GenerationFailedError for an error event."""
    text = ""
    for line in event.splitlines():
        data = line.removeprefix(_DATA)
        if data is line or data == _END or not data:
            continue
        payload = orjson.loads(data)
        if payload.get("error"):
            raise GenerationFailedError("the engine ended a stream with an error event")
        for choice in payload.get("choices") or ():
            if choice.get("index") == 0:
                text += _text(choice.get("delta") or choice)
    return text


def text_of_events(events: Iterable[str]) -> str:
    """The same for a whole stream."""
    return "".join(text_of_event(event) for event in events)


def _text(part: Mapping[str, Any]) -> str:
    if "text" in part:
        return part["text"] or ""
    thoughts = part.get("reasoning") or part.get("reasoning_content") or ""
    return thoughts + (part.get("content") or "")
