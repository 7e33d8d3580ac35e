from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from adapters.data import inspect_view
from adapters.data.example import Example, Message, Origin
from adapters.data.funnel import Funnel, FunnelRow
from adapters.data.inspect import count_characters, count_labels, count_lengths, pick, view_tokens
from adapters.data.prepare import PreparedData
from adapters.data.step import Finding
from bases.tiny import make_tiny_base

QUESTION, ANSWER = "How many legs does a spider have?", "Eight. 八条腿。"


def chat(line: int, *, label: str | None = None) -> Example:
    turns = (Message("user", QUESTION), Message("assistant", ANSWER))
    return Example(Origin("a.jsonl", line), messages=turns, label=label)


def prepared(
    *train: Example, validation: tuple[Example, ...] = (), rows: tuple[FunnelRow, ...] = ()
) -> PreparedData:
    return PreparedData(train, validation, (), Funnel(rows), (), {}, "f" * 64)


def silent(_text: str) -> None:
    """Nobody is told."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def drawn(show, *arguments, color: bool = False, **more) -> str:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=color, color_system="standard" if color else None)
    show(console, *arguments, **more)
    return out.getvalue()


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=200))
def test_every_length_is_in_one_bin(sizes):
    lengths = count_lengths(sizes, "tokens")
    assert sum(found.count for found in lengths.bins) == len(sizes)
    assert len(lengths.bins) <= 12
    for found, following in zip(lengths.bins, lengths.bins[1:], strict=False):
        assert found.high == following.low - 1
    for found in lengths.bins:
        inside = [size for size in sizes if size >= found.low and (found.high is None or size <= found.high)]
        assert len(inside) == found.count
    assert lengths.longest == max(sizes)
    assert lengths.median in sizes


def test_one_long_example_does_not_squeeze_the_histogram():
    lengths = count_lengths([*range(50, 150), *range(50, 150), 90_000], "tokens")
    assert [(found.low, found.high) for found in lengths.bins][:2] == [(50, 59), (60, 69)]
    assert lengths.bins[-1].high is None


@given(st.integers(0, 20), st.integers(0, 30))
def test_samples_are_picked_from_all_over(number, size):
    examples = [chat(line) for line in range(size)]
    picked = pick(examples, number)
    assert len(picked) == len({example.origin for example in picked}) == min(number, size)


def test_labels_are_counted_for_each_split():
    data = prepared(
        chat(1, label="b"), chat(2, label="a"), chat(3, label="a"), validation=(chat(4, label="c"),)
    )
    assert count_labels(data) == {
        "a": {"train": 2, "validation": 0, "test": 0},
        "b": {"train": 1, "validation": 0, "test": 0},
        "c": {"train": 0, "validation": 1, "test": 0},
    }
    assert "2 (67%)" in drawn(inspect_view.show_labels, count_labels(data))
    assert drawn(inspect_view.show_labels, {}) == ""


def test_characters_are_counted_without_a_base():
    assert count_characters(prepared(chat(1))).longest == len(QUESTION) + len(ANSWER)


def test_the_answer_and_its_end_are_the_learned_tokens(base):
    view = view_tokens(prepared(chat(1), chat(2)), base, num_samples=1, progress=silent)
    assert [sample.origin.line for sample in view.samples] == [1]
    learned = [span.text for span in view.samples[0].spans if span.supervised]
    assert learned == [ANSWER + "<|im_end|>"]
    assert QUESTION in "".join(span.text for span in view.samples[0].spans if not span.supervised)
    assert view.lengths.total == 2 * view.samples[0].num_tokens
    assert 0 < view.supervised_share < 1


def test_learned_tokens_are_green_and_in_brackets_where_there_is_no_colour(base):
    view = view_tokens(prepared(chat(1)), base, num_samples=1, progress=silent)
    plain = drawn(inspect_view.show_tokens, view)
    assert f"⟦{ANSWER}<|im_end|>⟧" in plain
    assert "\x1b" not in plain
    coloured = drawn(inspect_view.show_tokens, view, color=True)
    assert f"\x1b[32m{ANSWER}<|im_end|>\x1b[0m" in coloured
    assert f"⟦{ANSWER}" not in coloured


def test_the_funnel_shows_the_columns_that_hold_something():
    rows = (FunnelRow("read", 5, 5), FunnelRow("length", 5, 3, counts=(("too short", 2),)))
    text = drawn(inspect_view.show_funnel, Funnel(rows))
    assert "removed" in text
    assert "flagged" not in text
    assert "length: too short 2" in text


def test_removed_examples_are_shown_beside_what_they_repeat():
    findings = tuple(Finding(chat(line), "near duplicate, similarity 0.91", chat(1)) for line in (2, 3))
    text = drawn(inspect_view.show_pairs, FunnelRow("near-duplicates", 3, 1, removed_findings=findings), 1)
    assert "a.jsonl:1" in text
    assert "a.jsonl:2" in text
    assert "a.jsonl:3" not in text
    assert "and 1 more" in text


def test_personal_data_is_shown_without_the_text_around_it():
    findings = (Finding(chat(2), "personal data: mail b***m"),)
    shown = drawn(inspect_view.show_findings, "Flagged", findings, 3, hide_text=False)
    hidden = drawn(inspect_view.show_findings, "Flagged", findings, 3, hide_text=True)
    assert "spider" in shown
    assert "spider" not in hidden
    assert "mail b***m" in hidden


def test_examples_cannot_write_to_the_terminal_or_in_its_markup():
    example = Example(Origin("a", 1), text="[bold red]\x1b[2J\x1b]0;title\x07\u202egnp.exe[/bold red]")
    for color in (False, True):
        text = drawn(
            inspect_view.show_findings,
            "F",
            [Finding(example, "[link=x]why")],
            1,
            hide_text=False,
            color=color,
        )
        assert "[bold red]" in text
        assert "[link=x]why" in text
        assert not any(sign in text for sign in ("\x1b[2J", "\x1b]", "\x07", "\u202e"))
