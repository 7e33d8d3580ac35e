"""A reasoning model's thoughts apart from its answer, with vLLM's own parsers."""

from __future__ import annotations

from typing import Any

from serve.engine.protocol import Delta


class ReasoningSplitter:
    """Splits the deltas of one request; keeps the state of each of its sequences."""

    def __init__(self, parser_class: Any, tokenizer: Any) -> None:
        self._parser_class = parser_class
        self._tokenizer = tokenizer
        self._sequences: dict[int, tuple[Any, str, list[int]]] = {}

    def split_whole(self, delta: Delta) -> None:
        """Split a complete answer."""
        parser = self._parser_class(self._tokenizer)
        reasoning, text = parser.extract_reasoning(delta.text, None)
        delta.reasoning, delta.text = reasoning or "", text or ""

    def split(self, delta: Delta) -> None:
        """Split what one sequence gained."""
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
