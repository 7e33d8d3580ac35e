from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.data.conversation import RowError
from adapters.data.example import Example, Message, Origin, Role
from adapters.data.readers.row import Row
from adapters.data.shapes import Shaper
from adapters.errors import DataError

HERE = Origin("a.jsonl", 7)


def shape(values, **options) -> Example:
    return Shaper(**options).shape(Row(HERE, values))


def chat(*turns: str, **more) -> Example:
    """`u:question`, `a:answer`, `s:system` in turn."""
    roles: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant"}
    return Example(HERE, messages=tuple(Message(roles[turn[0]], turn[2:]) for turn in turns), **more)


def turn(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


QA = [turn("user", "Q"), turn("assistant", "A")]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"messages": QA}, chat("u:Q", "a:A")),
        ({"messages": [turn("system", "S"), *QA]}, chat("s:S", "u:Q", "a:A")),
        ({"messages": json.dumps(QA)}, chat("u:Q", "a:A")),
        ({"messages": [turn("user", [{"type": "text", "text": "Q"}]), QA[1]]}, chat("u:Q", "a:A")),
        (
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
            chat("u:Q", "a:A"),
        ),
        ({"conversations": QA, "system": "S"}, chat("s:S", "u:Q", "a:A")),
        ({"instruction": "I", "output": "O"}, chat("u:I", "a:O")),
        ({"instruction": "I", "input": "N", "output": "O"}, chat("u:I\n\nN", "a:O")),
        ({"instruction": "I", "input": "", "output": "O", "system": ""}, chat("u:I", "a:O")),
        ({"instruction": "I", "context": "N", "response": "O"}, chat("u:I\n\nN", "a:O")),
        ({"question": "Q", "answer": "A", "label": 3}, chat("u:Q", "a:A", label="3")),
        ({"prompt": "P", "completion": "C"}, Example(HERE, prompt="P", completion="C")),
        ({"prompt": "P", "completion": 4}, Example(HERE, prompt="P", completion="4")),
        ({"prompt": "P", "response": "C"}, Example(HERE, prompt="P", completion="C")),
        ({"prompt": [QA[0]], "completion": [QA[1]]}, chat("u:Q", "a:A")),
        ({"prompt": [QA[0]], "completion": "A"}, chat("u:Q", "a:A")),
        ({"text": " T\n"}, Example(HERE, text=" T\n")),
        ({"text": "T", "label": " high "}, Example(HERE, text="T", label="high")),
        ({"text": "T", "label": 2.0}, Example(HERE, text="T", label="2")),
        ({"text": "T", "label": True}, Example(HERE, text="T", label="true")),
        ({"text": "T", "label": float("nan")}, Example(HERE, text="T")),
        ({"text": "T", "label": None, "messages": None}, Example(HERE, text="T")),
        ({"text": "T", "task": "risk"}, Example(HERE, text="T", task="risk")),
    ],
)
def test_the_shape_is_told_by_the_columns(values, expected):
    assert shape(values) == expected


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("on", {"prompt": "P", "completion": "C"}, chat("u:P", "a:C")),
        ("off", {"question": "Q", "answer": "A"}, Example(HERE, prompt="Q", completion="A")),
        (
            "off",
            {"instruction": "I", "input": "N", "output": "O"},
            Example(HERE, prompt="I\n\nN", completion="O"),
        ),
        ("off", {"messages": QA}, chat("u:Q", "a:A")),
        ("off", {"prompt": [QA[0]], "completion": "A"}, chat("u:Q", "a:A")),
        ("on", {"text": "T"}, Example(HERE, text="T")),
    ],
)
def test_prompt_and_answer_become_a_conversation_as_the_setting_says(mode, values, expected):
    assert shape(values, chat=mode) == expected


def test_the_system_text_begins_conversations_that_have_none():
    assert shape({"messages": QA}, system="S") == chat("s:S", "u:Q", "a:A")
    assert shape({"messages": [turn("system", "own"), *QA]}, system="S") == chat("s:own", "u:Q", "a:A")
    assert shape({"question": "Q", "answer": "A", "system": "row"}, system="S") == chat("s:row", "u:Q", "a:A")


def test_raw_examples_that_have_no_place_for_the_system_text_are_counted():
    shaper = Shaper(system="S")
    shaper.shape(Row(HERE, {"text": "T"}))
    shaper.shape(Row(HERE, {"prompt": "P", "completion": "C"}))
    shaper.shape(Row(HERE, {"messages": QA}))
    assert shaper.num_without_system == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"messages": [turn("user", "Q")]}, "last message is the user's.*end with an assistant"),
        ({"messages": [turn("assistant", "A")]}, "no message is the user's"),
        ({"messages": [turn("robot", "Q"), QA[1]]}, "message 1 has the role 'robot'; known are system, user"),
        ({"messages": [turn("tool", "Q"), QA[1]]}, "role 'tool'.*tool calls are not learned"),
        ({"messages": [{"content": "Q"}, QA[1]]}, "message 1 has the role None"),
        ({"messages": [QA[0], turn("assistant", "  ")]}, "the assistant message 2 is empty; write it"),
        ({"messages": [QA[0], turn("assistant", None)]}, "the assistant message 2 has no text"),
        (
            {"messages": [QA[0], turn("assistant", [{"type": "image"}])]},
            "the assistant message 2 has no text",
        ),
        ({"messages": [QA[0], turn("assistant", [{"type": "text"}])]}, "the assistant message 2 has no text"),
        ({"messages": [QA[0], turn("system", "S"), QA[1]]}, "message 2 is a system message; only the first"),
        ({"messages": []}, "empty list"),
        ({"messages": "Q and A"}, "is text, not a list"),
        ({"messages": "[" * 100_000}, "is text, not a list"),
        ({"messages": '[{"role": "user", "content": "\\ud800"}]'}, "is text, not a list"),
        ({"messages": {"role": "user"}}, "is not a list of messages"),
        ({"messages": ["Q", "A"]}, "message 1 is not an object"),
        ({"prompt": "P"}, r"there is a prompt but no completion \(columns: 'prompt'\)"),
        (
            {"prompt": "P", "completions": "C"},
            "did you mean 'completions'.*--columns prompt=prompt,completion=completions",
        ),
        ({"prompt": "P", "completion": None}, "there is a prompt but no completion"),
        ({"prompt": "P", "completion": ""}, "the completion is empty; write it"),
        ({"prompt": " ", "completion": "C"}, "the prompt is empty"),
        ({"prompt": "P", "completion": 1.5}, "the completion holds float '1.5', not text"),
        ({"prompt": {"a": 1}, "completion": "C"}, "the prompt holds dict"),
        ({"text": True}, "the text holds bool 'True', not text"),
        ({"text": "T", "label": ["a"]}, "the label holds list"),
        ({"text": ""}, "the text is empty"),
        (
            {"frage": "Q", "antwort": "A"},
            r"columns 'frage', 'antwort' are no known shape \(messages; .*--columns",
        ),
        ({}, r"columns \(none\) are no known shape"),
    ],
)
def test_a_row_that_is_no_example_says_why_and_what_to_do(values, message):
    with pytest.raises(RowError, match=message):
        shape(values)


def test_a_column_map_says_what_is_what():
    columns = {"prompt": "frage", "completion": "antwort", "label": "stufe"}
    values = {"frage": "Q", "antwort": "A", "stufe": 3, "text": "not this", "prompt": "nor this"}
    assert shape(values, columns=columns) == Example(HERE, prompt="Q", completion="A", label="3")


def test_a_map_of_the_label_alone_leaves_the_shape_to_be_recognised():
    assert shape({"text": "T", "stufe": "high", "label": "x"}, columns={"label": "stufe"}).label == "high"


def test_a_wrong_column_is_named_with_those_that_are_there_and_the_nearest():
    with pytest.raises(
        RowError,
        match=r"no column 'Antwrt', .* the completion; there are 'frage', 'antwort'; did you mean 'antwort'\?",
    ):
        shape({"frage": "Q", "antwort": "A"}, columns={"prompt": "frage", "completion": "Antwrt"})


def test_a_wrong_label_column_is_an_error_although_a_label_may_be_missing():
    shaper = Shaper(columns={"label": "stuffe"})
    shaper.shape(Row(HERE, {"text": "T", "stufe": "1"}))
    with pytest.raises(DataError, match=r"^a\.jsonl:7: there is no column 'stuffe'.*did you mean 'stufe'"):
        shaper.check_columns()


def test_a_label_column_may_be_missing_in_some_rows():
    shaper = Shaper(columns={"label": "stufe"})
    assert shaper.shape(Row(HERE, {"text": "T"})).label is None
    assert shaper.shape(Row(HERE, {"text": "T", "stufe": "1"})).label == "1"
    shaper.check_columns()


def test_columns_that_nothing_was_taken_from_are_known():
    shaper = Shaper()
    shaper.shape(Row(HERE, {"id": 1, "messages": QA, "text": "rendered"}))
    assert shaper.unused_columns() == ["id", "text"]


def test_a_pattern_finds_the_label_in_the_answer():
    shaper = Shaper(label_pattern=re.compile(r"Risk: (\d)"))
    assert shaper.shape(Row(HERE, {"prompt": "P", "completion": "Risk: 4, because"})).label == "4"
    assert shaper.shape(Row(HERE, {"prompt": "P", "completion": "No idea"})).label is None
    assert shaper.shape(Row(HERE, {"prompt": "P", "completion": "Risk: 4", "label": "9"})).label == "9"
    assert shaper.num_without_label == 1


def test_a_task_given_on_the_command_line_beats_the_column():
    assert shape({"text": "T", "task": "row"}, task="mine").task == "mine"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "text", "type"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "messages",
        "conversations",
        "prompt",
        "completion",
        "instruction",
        "output",
        "input",
        "text",
        "label",
        "system",
        "x",
    ]
)


@given(st.dictionaries(names, values, max_size=5), st.sampled_from(["auto", "on", "off"]))
def test_any_row_is_an_example_with_something_to_learn_or_an_error(row, mode):
    try:
        example = shape(row, chat=mode)
    except RowError as error:
        assert str(error)
    else:
        assert example.answer.strip()
        assert example.origin == HERE
