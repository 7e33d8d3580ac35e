"""A reasoning model's thoughts apart from its answer."""

from __future__ import annotations

from typing import Any

from serve.engine.protocol import Delta

# vLLM's parser for this family cuts a stream where the token of a tag comes. With stop texts the text comes
# later than its tokens, and characters are lost around the tag; here the text alone decides.
_BY_TEXT = "DeepSeekR1ReasoningParser"
_START, _END = "<think>", "</think>"


class ReasoningSplitter:
    """Splits the deltas of one request; keeps the state of each of its sequences.

    The DeepSeek-R1 family (`<think>`) is split by text, every other by vLLM's own parser.
    """

    def __init__(self, parser_class: Any, tokenizer: Any) -> None:
        self._parser_class = parser_class
        self._tokenizer = tokenizer
        self._by_text = parser_class.__name__ == _BY_TEXT
        self._thinkers: dict[int, ThinkSplitter] = {}
        self._sequences: dict[int, tuple[Any, str, list[int]]] = {}

    def split_whole(self, delta: Delta) -> None:
        """Split a complete answer."""
        if self._by_text:
            delta.reasoning, delta.text = ThinkSplitter().split(delta.text, last=True)
            return
        parser = self._parser_class(self._tokenizer)
        reasoning, text = parser.extract_reasoning(delta.text, None)
        delta.reasoning, delta.text = reasoning or "", text or ""

    def split(self, delta: Delta) -> None:
        """Split what one sequence gained."""
        if self._by_text:
            thinker = self._thinkers.setdefault(delta.index, ThinkSplitter())
            last = delta.finish_reason is not None
            delta.reasoning, delta.text = thinker.split(delta.text, last=last)
            return
        parser, text, ids = self._sequences.get(delta.index) or (self._parser_class(self._tokenizer), "", [])
        now_text, now_ids = text + delta.text, [*ids, *delta.token_ids]
        self._sequences[delta.index] = (parser, now_text, now_ids)
        if not delta.text and not delta.token_ids:
            return
        message = parser.extract_reasoning_streaming(
            text, now_text, delta.text, ids, now_ids, list(delta.token_ids)
        )
        delta.reasoning = (message.reasoning or "") if message is not None else ""
        delta.text = (message.content or "") if message is not None else ""


class ThinkSplitter:
    """Everything before `</think>` is reasoning, less one `<think>`; many templates write that one themselves.

    A tag that arrives in pieces is held back until it is whole or cannot become one.
    """

    def __init__(self) -> None:
        self._held = ""
        self._started = False
        self._ended = False

    def split(self, text: str, *, last: bool) -> tuple[str, str]:
        """(reasoning, answer) out of the next piece; `last` gives up what was held back."""
        if self._ended:
            return "", text
        text = self._held + text
        self._held = ""
        thought, end, answer = text.partition(_END)
        if not self._started:
            before, start, after = thought.partition(_START)
            if start:
                self._started, thought = True, before + after
        if end:
            self._ended = True
            return thought, answer
        if not last:
            held = max(_cut_off(thought, _END), 0 if self._started else _cut_off(thought, _START))
            self._held = thought[len(thought) - held :]
            thought = thought[: len(thought) - held]
        return thought, ""


def _cut_off(text: str, tag: str) -> int:
    """How many characters at the end of `text` could be the beginning of `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)
