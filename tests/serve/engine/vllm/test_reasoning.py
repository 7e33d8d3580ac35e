"""Thoughts and answers apart, with a parser that splits at a word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from serve.engine.protocol import Delta
from serve.engine.vllm.reasoning import ReasoningSplitter


class WordParser:
    """Everything before "|" is reasoning; checks that it is told the whole story."""

    def __init__(self, tokenizer: Any) -> None:
        self.seen_text, self.seen_ids = "", [0][:0]

    def extract_reasoning(self, text: str, request: Any) -> tuple[str | None, str | None]:
        before, bar, after = text.partition("|")
        return (before, after) if bar else (None, text)

    def extract_reasoning_streaming(
        self, before: str, now: str, delta: str, ids: list[int], now_ids: list[int], delta_ids: list[int]
    ) -> Any:
        assert (before, ids) == (self.seen_text, self.seen_ids)
        assert (now, now_ids) == (before + delta, [*ids, *delta_ids])
        self.seen_text, self.seen_ids = now, now_ids
        if delta == "|":
            return None
        if "|" in before:
            return SimpleNamespace(reasoning=None, content=delta)
        return SimpleNamespace(reasoning=delta, content=None)


def test_a_whole_answer_is_split() -> None:
    splitter = ReasoningSplitter(WordParser, None)
    delta = Delta(0, "hm|yes")
    splitter.split_whole(delta)
    assert (delta.reasoning, delta.text) == ("hm", "yes")
    plain = Delta(0, "yes")
    splitter.split_whole(plain)
    assert (plain.reasoning, plain.text) == ("", "yes")


def test_sequences_of_one_stream_are_split_each_for_itself() -> None:
    splitter = ReasoningSplitter(WordParser, None)
    said: dict[int, list[tuple[str, str]]] = {0: [], 1: []}
    for index, text in ((0, "a"), (1, "x"), (0, "|"), (1, "y"), (0, "b"), (1, "|"), (1, "z")):
        delta = Delta(index, text, token_ids=(ord(text),))
        splitter.split(delta)
        said[index].append((delta.reasoning, delta.text))
    assert said[0] == [("a", ""), ("", ""), ("", "b")]
    assert said[1] == [("x", ""), ("y", ""), ("", ""), ("", "z")]


def test_an_empty_step_is_left_alone() -> None:
    splitter = ReasoningSplitter(WordParser, None)
    delta = Delta(0, "", finish_reason="stop")
    splitter.split(delta)
    assert (delta.text, delta.reasoning, delta.finish_reason) == ("", "", "stop")
