"""What is asked of both sides: mixed lengths, mixed adapters, and the same whoever asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fast_path.questions import PROMPT_WORDS, make_questions

TEXTS = ["one two three", "four five", "six seven eight nine ten eleven"]


def test_neighbours_have_different_adapters_and_the_base_takes_part() -> None:
    named = [question.adapter for question in make_questions(TEXTS, 5, 2)]
    assert named == [None, "adapter-0", "adapter-1", None, "adapter-0"]


def test_prompts_are_short_and_long_in_turn_and_go_on_in_the_text() -> None:
    questions = make_questions(TEXTS, 2 * len(PROMPT_WORDS), 1)
    prompts = [question.messages[0]["content"] for question in questions]
    assert tuple(len(prompt.split()) for prompt in prompts) == 2 * PROMPT_WORDS
    assert prompts[0] == "one two three four"
    assert prompts[1].startswith("five six")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
def test_the_first_of_many_are_the_same_as_few(few: int, more: int, adapters: int) -> None:
    questions = make_questions(TEXTS, few + more, adapters)
    assert questions[:few] == make_questions(TEXTS, few, adapters)
    assert [question.number for question in questions] == list(range(few + more))


def test_the_hash_tells_prompts_apart_and_nothing_else() -> None:
    alone, shared = make_questions(TEXTS, 4, 0), make_questions(TEXTS, 4, 3)
    assert [question.sha256 for question in alone] == [question.sha256 for question in shared]
    assert len({question.sha256 for question in alone}) == 4


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(ValueError, match="no words"):
        make_questions([" "], 1, 1)
