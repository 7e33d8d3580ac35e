"""OpenAI's answers with reviewed text, and without the fields that would tell what was not let through.

Content, reasoning, completions' text and the arguments of tool calls are texts of their own, each reviewed from
its beginning to its end. Of everything else only what is named here goes out: no log probabilities, no token ids.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import orjson

from serve.review.review import Reviewer, StreamReview
from serve.review.subject import Subject

_CHOICE_FIELDS = ("index", "finish_reason", "stop_reason")
_TEXT_FIELDS = ("content", "reasoning", "reasoning_content")
_CALL_FIELDS = ("index", "id", "type")
_PREFIX, _END = "data: ", "\n\n"


class OpenAIAnswers:
    """The answers to one request."""

    def __init__(self, reviewer: Reviewer, subject: Subject) -> None:
        self._reviewer = reviewer
        self._subject = subject
        self._streams: dict[tuple[int, str], StreamReview] = {}

    async def whole(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """A whole answer as it may go out. Raises ReviewRefusedError, ReviewFailedError."""
        return {**answer, "choices": [await self._choice(choice) for choice in answer["choices"]]}

    async def events(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        """The events of a stream as they may go out; nothing goes out before there is text that may.

        Raises ReviewRefusedError, ReviewFailedError.
        """
        waiting: list[str] = []  # of no text: who speaks
        async with aclosing(cast("Any", events)) as opened:
            async for event in opened:
                data = event.removeprefix(_PREFIX).strip()
                if data == "[DONE]":
                    passed, tells = event, True
                else:
                    chunk = orjson.loads(data)
                    chunk["choices"] = [await self._piece(choice) for choice in chunk.get("choices") or ()]
                    tells = not chunk["choices"] or any(_tells(choice) for choice in chunk["choices"])
                    if not tells and not any(_names(choice) for choice in chunk["choices"]):
                        continue
                    passed = f"{_PREFIX}{orjson.dumps(chunk).decode()}{_END}"
                waiting.append(passed)
                if tells:
                    for each in waiting:
                        yield each
                    waiting.clear()

    async def _choice(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        kept = _kept(choice, _CHOICE_FIELDS)
        if "text" in choice:
            kept["text"] = await self._text(choice["text"])
        if (message := choice.get("message")) is not None:
            kept["message"] = await self._message(message)
        return kept

    async def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        kept = _kept(message, ("role",))
        for name in _TEXT_FIELDS:
            if message.get(name) is not None:
                kept[name] = await self._text(message[name])
        if message.get("tool_calls"):
            kept["tool_calls"] = [
                {
                    **_kept(call, _CALL_FIELDS),
                    "function": {
                        **_kept(call["function"], ("name",)),
                        "arguments": await self._text(call["function"]["arguments"]),
                    },
                }
                for call in message["tool_calls"]
            ]
        return kept

    async def _text(self, text: str) -> str:
        return await self._reviewer.answer(self._subject, text)

    async def _piece(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        kept, index = _kept(choice, _CHOICE_FIELDS), choice["index"]
        ended = choice.get("finish_reason") is not None
        if "text" in choice:
            kept["text"] = await self._feed(index, "text", choice["text"])
            if ended:
                kept["text"] += await self._finish(index, "text")
        if (delta := choice.get("delta")) is not None:
            kept["delta"] = await self._delta(index, delta, ended=ended)
        return kept

    async def _delta(self, index: int, delta: Mapping[str, Any], *, ended: bool) -> dict[str, Any]:
        kept = _kept(delta, ("role",))
        for name in _TEXT_FIELDS:
            if delta.get(name) is not None:
                kept[name] = await self._feed(index, name, delta[name])
        calls = [await self._call(index, call) for call in delta.get("tool_calls") or ()]
        if ended:
            for number, name in [key for key in self._streams if key[0] == index]:
                if rest := await self._finish(number, name):
                    if name in _TEXT_FIELDS:
                        kept[name] = (kept.get(name) or "") + rest
                    else:
                        calls.append({"index": int(name), "function": {"arguments": rest}})
        if calls := [call for call in calls if len(call) > 2 or call["function"]]:
            kept["tool_calls"] = calls
        return kept

    async def _call(self, index: int, call: Mapping[str, Any]) -> dict[str, Any]:
        kept = {**_kept(call, _CALL_FIELDS), "index": call["index"]}
        function = call.get("function") or {}
        kept["function"] = _kept(function, ("name",))
        if function.get("arguments"):
            text = await self._feed(index, str(call["index"]), function["arguments"])
            if text or kept["function"].get("name"):
                kept["function"]["arguments"] = text
        return kept

    async def _feed(self, index: int, name: str, text: str) -> str:
        if (index, name) not in self._streams:
            self._streams[index, name] = self._reviewer.stream(self._subject)
        return await self._streams[index, name].feed(text)

    async def _finish(self, index: int, name: str) -> str:
        stream = self._streams.pop((index, name), None)
        return await stream.finish() if stream is not None else ""


def _kept(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """What is named, and which other fields there are, without what is in them."""
    return {
        name: value if name in names else None for name, value in values.items() if name in names or not value
    }


def _tells(choice: Mapping[str, Any]) -> bool:
    """Whether a piece has text, a call or an end."""
    delta = choice.get("delta") or {}
    return bool(
        choice.get("finish_reason")
        or choice.get("text")
        or delta.get("tool_calls")
        or any(delta.get(name) for name in _TEXT_FIELDS)
    )


def _names(choice: Mapping[str, Any]) -> bool:
    """Whether a piece says who speaks."""
    return bool((choice.get("delta") or {}).get("role"))
