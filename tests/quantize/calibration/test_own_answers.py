"""A base answers the shipped prompts itself, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.training.base_model import load_training_model
from bases.resolve import ResolvedBase
from quantize.calibration import own_answers as room
from quantize.calibration.make import make_calibration
from quantize.calibration.own_answers import own_answers


def silent(text: str) -> None:
    """Nobody is waiting."""


PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15]]


def ask(base: ResolvedBase, home: Path, *, seed: int = 0, num_tokens: int = 10**6) -> list[list[int]]:
    return own_answers(
        base,
        PROMPTS,
        num_tokens=num_tokens,
        max_answer_tokens=6,
        seed=seed,
        home=home,
        progress=silent,
    )


def test_answers_are_kept_by_base_and_seed(
    base: ResolvedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = ask(base, tmp_path), ask(base, tmp_path, seed=1)
    assert len(first) == len(PROMPTS)
    assert first != other
    monkeypatch.setattr(room, "load_training_model", None)
    assert ask(base, tmp_path) == first


def test_only_as_many_are_asked_as_are_needed_and_later_ones_join_them(
    base: ResolvedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_BATCH", 2)
    everything = ask(base, tmp_path / "one")
    num_tokens = len(PROMPTS[0]) + len(everything[0])
    few = ask(base, tmp_path / "two", num_tokens=num_tokens)
    assert few == everything[:1]
    (kept,) = (tmp_path / "two" / "calibration").iterdir()
    assert len(json.loads(kept.read_text())) == 2
    assert ask(base, tmp_path / "two") == everything
    # What was made for more rows does not change what fewer rows are made of.
    assert ask(base, tmp_path / "two", num_tokens=num_tokens) == few


def test_a_broken_keepsake_is_made_anew(base: ResolvedBase, tmp_path: Path) -> None:
    first = ask(base, tmp_path)
    (kept,) = (tmp_path / "calibration").iterdir()
    for broken in ("[1", '{"0": []}', "[[1], 2]"):
        kept.write_text(broken)
        assert ask(base, tmp_path) == first


def test_padding_changes_no_answer(base: ResolvedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    def likeliest(shares: torch.Tensor, num_samples: int) -> torch.Tensor:
        return shares.argmax(-1, keepdim=True)

    monkeypatch.setattr(torch, "multinomial", likeliest)
    model = load_training_model(base, dtype=torch.float32).model.eval()
    with torch.inference_mode():
        together = room._answer_batch(model, PROMPTS, 6)
        alone = [room._answer_batch(model, [prompt], 6)[0] for prompt in PROMPTS]
    assert together == alone


def test_an_answer_ends_at_the_end_token(base: ResolvedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_training_model(base, dtype=torch.float32).model.eval()
    end = model.generation_config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    steps = iter(range(100))

    def ends_third(shares: torch.Tensor, num_samples: int) -> torch.Tensor:
        step = next(steps)
        return torch.tensor([[end if step == 2 and row == 1 else 20] for row in range(len(shares))])

    monkeypatch.setattr(torch, "multinomial", ends_third)
    with torch.inference_mode():
        answers = room._answer_batch(model, PROMPTS, 5)
    assert answers == [[20] * 5, [20, 20, end], [20] * 5, [20] * 5]


def test_the_rows_are_made_of_the_prompts_and_the_base_s_own_words(
    base: ResolvedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(model: Any, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
        return [[21, 22, 23]] * len(prompts)

    monkeypatch.setattr(room, "_answer_batch", say)
    made = make_calibration(
        base, num_samples=4, row_tokens=256, answers="own", home=tmp_path, progress=silent
    )
    assert made.stats.source == "the default set, answered by the base itself"
    assert any(row[place : place + 3] == [21, 22, 23] for row in made.rows for place in range(250))
    # What is measured on stays text that somebody else wrote.
    assert not any(
        row[place : place + 3] == [21, 22, 23] for row in made.held_out_rows for place in range(250)
    )
