"""ReasoningSplitter with vLLM's own DeepSeek-R1 parser, on answers cut into deltas in every way."""

from __future__ import annotations

import itertools
import warnings

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serve.engine.protocol import Delta
from serve.engine.vllm.reasoning import ReasoningSplitter
from tests.serve.live.thinking_base import make_thinking_base

ANSWERS = {
    "It is a prime.</think>Yes, 7 is.": ("It is a prime.", "Yes, 7 is."),
    "<think>It is a prime.</think>Yes, 7 is.": ("It is a prime.", "Yes, 7 is."),
    "still thinking when the tokens ran out": ("still thinking when the tokens ran out", ""),
    "</think>Yes.": ("", "Yes."),
    "all thought, no answer</think>": ("all thought, no answer", ""),
    "less < more </b> and </thin": ("less < more </b> and </thin", ""),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_thinking_base(tmp_path_factory.mktemp("bases") / "thinking"))


@pytest.fixture(scope="module")
def parser():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of itself while vLLM imports it
        from vllm.reasoning import ReasoningParserManager

        return ReasoningParserManager.get_reasoning_parser("deepseek_r1")


def stream(parser, tokenizer, answer: str, tokens_per_delta: int, held_back: int) -> list[Delta]:
    """The deltas in which vLLM gives an answer: with stop texts, text comes `held_back` characters late."""
    splitter = ReasoningSplitter(parser, tokenizer)
    ids = tokenizer(answer)["input_ids"]
    deltas, shown = [], 0
    for start in range(0, len(ids), tokens_per_delta):
        end = min(start + tokens_per_delta, len(ids))
        known = len(tokenizer.decode(ids[:end]))
        until = known if end == len(ids) else max(shown, known - held_back)
        deltas.append(Delta(0, answer[shown:until], token_ids=ids[start:end]))
        shown = until
    if deltas:
        deltas[-1].finish_reason = "stop"
    for delta in deltas:
        splitter.split(delta)
    return deltas


def joined(deltas: list[Delta]) -> tuple[str, str]:
    return "".join(delta.reasoning for delta in deltas), "".join(delta.text for delta in deltas)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_stream_is_split_as_the_whole_is(parser, tokenizer, answer):
    delta = Delta(0, answer, token_ids=tokenizer(answer)["input_ids"])
    ReasoningSplitter(parser, tokenizer).split_whole(delta)
    assert (delta.reasoning, delta.text) == ANSWERS[answer]
    by_vllm = parser(tokenizer).extract_reasoning(answer, None)
    assert tuple(part or "" for part in by_vllm) == ANSWERS[answer]
    for tokens_per_delta, held_back in itertools.product((1, 2, 5, 1000), (0, 1, 4, 12)):
        deltas = stream(parser, tokenizer, answer, tokens_per_delta, held_back)
        assert joined(deltas) == ANSWERS[answer], (tokens_per_delta, held_back)


def test_each_sequence_is_split_by_itself(parser, tokenizer):
    splitter = ReasoningSplitter(parser, tokenizer)
    answers = ["short</think>One", "a much longer thought</think>Two"]
    split: dict[int, list[Delta]] = {0: [], 1: []}
    for pair in itertools.zip_longest(*(tokenizer(answer)["input_ids"] for answer in answers)):
        for index, token in enumerate(pair):
            if token is not None:
                delta = Delta(index, tokenizer.decode([token]), token_ids=[token])
                splitter.split(delta)
                split[index].append(delta)
    assert joined(split[0]) == ("short", "One")
    assert joined(split[1]) == ("a much longer thought", "Two")


SOME_TEXT = st.text(alphabet="ab <>/think\n", max_size=20)


@settings(max_examples=60, deadline=None)
@given(thought=SOME_TEXT, answer=SOME_TEXT, tokens_per_delta=st.integers(1, 6), held_back=st.integers(0, 10))
def test_any_thought_and_answer_come_out_as_they_went_in(
    parser, tokenizer, thought, answer, tokens_per_delta, held_back
):
    assume("think>" not in thought + answer)
    deltas = stream(parser, tokenizer, f"{thought}</think>{answer}", tokens_per_delta, held_back)
    assert joined(deltas) == (thought, answer)
