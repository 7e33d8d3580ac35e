from __future__ import annotations

from adapters.data.example import Example, Message, Origin
from adapters.evaluation.question import question_of

HERE = Origin("data.jsonl", 1)


def test_a_conversation_is_asked_without_its_last_assistant_turn():
    turns = (
        Message("system", "Be brief."),
        Message("user", "One?"),
        Message("assistant", "Yes."),
        Message("user", "Two?"),
        Message("assistant", "No."),
    )
    question = question_of(Example(HERE, messages=turns))
    assert question is not None
    assert question.messages == turns[:4]
    assert (question.reference, question.shown) == ("No.", "Two?")


def test_turns_after_the_last_answer_are_not_asked():
    turns = (Message("user", "One?"), Message("assistant", "Yes."), Message("user", "Thanks."))
    question = question_of(Example(HERE, messages=turns))
    assert question is not None
    assert (question.messages, question.reference) == (turns[:1], "Yes.")


def test_a_completion_is_asked_as_its_raw_prompt():
    question = question_of(Example(HERE, prompt="2 + 2 =", completion=" 4"))
    assert question is not None
    assert (question.prompt, question.reference, question.as_dicts()) == ("2 + 2 =", " 4", [])


def test_text_and_an_answer_without_a_question_ask_nothing():
    assert question_of(Example(HERE, text="Once upon a time")) is None
    assert question_of(Example(HERE, messages=(Message("assistant", "Hello."),))) is None
