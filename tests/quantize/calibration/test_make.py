"""From files to rows: encoded as training does, held out by example, and said what is odd about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.data.encode import ExampleEncoder
from adapters.data.read import read_examples
from adapters.errors import DataError
from bases.resolve import ResolvedBase, resolve_base
from bases.tiny import make_tiny_base
from quantize.calibration.calibration_set import CalibrationSet, split_rows
from quantize.calibration.documents import DocumentEncoder
from quantize.calibration.errors import CalibrationError
from quantize.calibration.make import make_calibration
from tests.quantize.calibration.conftest import chat

Write = Callable[..., Path]


def make(base: ResolvedBase, **given: Any) -> CalibrationSet:
    options: dict[str, Any] = {"num_samples": 8, "row_tokens": 64, "seed": 0, "progress": silent}
    return make_calibration(base, **(options | given))


def silent(text: str) -> None:
    """Nobody is waiting."""


def decode(base: ResolvedBase, row: list[int]) -> str:
    return ExampleEncoder(base.path, max_length_tokens=10**6).decode(row)


def test_a_row_is_what_training_encodes(base: ResolvedBase, write: Write) -> None:
    file = write("one.jsonl", [chat("Why?", "Because of <|im_end|> and this.")])
    encoder = ExampleEncoder(base.path, max_length_tokens=10**6)
    (trained,) = encoder.encode_whole(read_examples(file))[0]
    other = write("other.jsonl", [chat("What?", "That.")])
    made = make(base, data=[file], evaluation=[other], row_tokens=len(trained.input_ids), num_samples=3)
    assert made.rows == [list(trained.input_ids)]
    assert made.held_out_prompts == [encoder.encode_prompt(read_examples(other)[0])]


def test_held_out_rows_share_no_example_with_the_calibration(base: ResolvedBase, write: Write) -> None:
    file = write("many.jsonl", [chat(f"question <{n:03}>", f"answer <{n:03}> " * 3) for n in range(60)])
    made = make(base, data=[file], num_samples=1000)
    calibration, held_out = split_rows(made, 5)
    assert len(held_out) == 5
    assert all(len(row) == 64 for row in calibration + held_out)

    def numbers(rows: list[list[int]]) -> set[str]:
        text = decode(base, [token for row in rows for token in row])
        return {f"{n:03}" for n in range(60) if f"<{n:03}>" in text}

    assert numbers(calibration)
    assert numbers(made.held_out_rows)
    assert not numbers(calibration) & numbers(made.held_out_rows)
    assert made.stats.held_out_examples == 12
    assert made.stats.examples <= 48
    assert made.stats.tokens == 64 * len(calibration)
    assert made.stats.source == "many.jsonl"


def test_the_same_arguments_give_the_same_rows_and_the_seed_decides(base: ResolvedBase) -> None:
    one, again, other = make(base), make(base), make(base, seed=1)
    assert (one.rows, one.held_out_rows) == (again.rows, again.held_out_rows)
    assert one.rows != other.rows


def test_the_shipped_set_is_used_without_a_file_and_needs_no_warning(base: ResolvedBase) -> None:
    made = make(base, num_samples=64, row_tokens=256)
    assert made.stats.source == "the default set"
    assert made.stats.rows == 64
    assert made.warnings == ()
    assert len(made.held_out_rows) >= 16
    prompt = decode(base, made.held_out_prompts[0])
    assert prompt.rstrip().endswith("assistant")


def test_too_few_tokens_for_the_widest_layer_are_said(base: ResolvedBase) -> None:
    small = make(base, num_samples=2, row_tokens=64)
    assert any("is small: 128 tokens for layers with up to 128 inputs" in text for text in small.warnings)


def test_fewer_rows_than_asked_for_are_said(base: ResolvedBase, write: Write) -> None:
    file = write("few.jsonl", [chat(f"question {n}", "some words " * 9) for n in range(10)])
    made = make(base, data=[file], num_samples=500)
    assert any(f"fills {len(made.rows)} of 500 rows" in text for text in made.warnings)


def test_text_of_another_kind_is_said(base: ResolvedBase, write: Write) -> None:
    digits = [chat("1" * (n + 1), "0123456789 " * 40) for n in range(40)]
    made = make(base, data=[write("digits.jsonl", digits)], num_samples=64)
    assert made.stats.uncovered_share > 0.3
    assert any("unlike everyday chat" in text for text in made.warnings)
    # Compared with what it was made for, it is fine.
    evaluation = [chat("7" * (n + 1), "0123456789 " * 9) for n in range(9)]
    fits = make(base, data=[write("digits.jsonl", digits)], evaluation=[write("more.jsonl", evaluation)])
    assert fits.stats.uncovered_share < 0.05
    assert not any("unlike" in text for text in fits.warnings)


def test_an_evaluation_file_is_measured_on_and_not_calibrated_with(base: ResolvedBase, write: Write) -> None:
    both = [chat(f"question <{n:03}>", f"answer <{n:03}> " * 3) for n in range(20)]
    made = make(
        base,
        data=[write("data.jsonl", both)],
        evaluation=[write("evaluation.jsonl", both[:5])],
        num_samples=999,
    )
    calibrated = decode(base, [token for row in made.rows for token in row])
    measured = decode(base, [token for row in made.held_out_rows for token in row])
    assert "<019>" in calibrated
    assert not any(f"<{n:03}>" in calibrated for n in range(5))
    assert any(f"<{n:03}>" in measured for n in range(5))
    with pytest.raises(CalibrationError, match="nothing is left"):
        make(base, data=[write("data.jsonl", both[:5])], evaluation=[write("evaluation.jsonl", both)])


def test_three_short_lines_are_one_clear_error(base: ResolvedBase, write: Write) -> None:
    file = write("three.jsonl", [chat("a", "b"), chat("c", "d"), chat("e", "f")])
    with pytest.raises(
        CalibrationError, match=r"three.jsonl\) has \d+ tokens, which do not fill one row of 64"
    ):
        make(base, data=[file])


def test_one_example_alone_cannot_be_calibrated_with_and_measured_on(
    base: ResolvedBase, write: Write
) -> None:
    with pytest.raises(CalibrationError, match="no two different examples"):
        make(base, data=[write("one.jsonl", [chat("ask", "say" * 99)])])


def test_a_file_that_is_no_data_is_refused_with_its_line(base: ResolvedBase, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"messages": 3}\n')
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        make(base, data=[tmp_path / "bad.jsonl"])


@pytest.mark.parametrize("row_tokens", [1, 513])
def test_rows_outside_the_context_are_refused(base: ResolvedBase, row_tokens: int) -> None:
    with pytest.raises(CalibrationError, match="context is 2 to 512"):
        make(base, row_tokens=row_tokens)


def test_a_base_without_chat_template_is_calibrated_on_plain_text(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "tiny", layers=1, hidden_size=64)
    (folder / "chat_template.jinja").unlink()
    base = resolve_base(str(folder), home=tmp_path)
    made = make(base, answers="own", home=tmp_path)
    assert made.stats.source == "the default set"
    text = decode(base, [token for row in made.rows for token in row])
    assert "assistant" not in text[:200]


def test_of_a_large_file_no_more_is_encoded_than_there_is_to_choose_from(
    base: ResolvedBase, write: Write
) -> None:
    examples = read_examples(write("large.jsonl", [chat(f"question {n}", "some words") for n in range(3000)]))
    encoder = DocumentEncoder(base)
    everything, some = encoder.encode(examples), encoder.encode(examples, most_tokens=10_000)
    assert 10_000 <= some.num_tokens < everything.num_tokens / 2
    assert some.ids == everything.ids[: len(some.ids)]
    assert some.examples == list(range(len(some.ids)))
